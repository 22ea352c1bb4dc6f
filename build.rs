//! Finds out which commit is built: `MEETING_SERVER_COMMIT` of the environment where it is set, or
//! else what git says, or else none. A source archive without git builds all the same.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const VARIABLE: &str = "MEETING_SERVER_COMMIT";

/// The digits of a commit that are shown.
const SHOWN: usize = 12;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given = env::var(VARIABLE).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if given.len() > 64 || !given.bytes().all(plain) {
        println!("cargo::error={VARIABLE} must be at most 64 of [0-9A-Za-z._-]");
        return ExitCode::FAILURE;
    }
    let commit = if given.is_empty() {
        let is_release = env::var_os("PROFILE").is_some_and(|profile| profile == "release");
        let root = env::var_os("CARGO_MANIFEST_DIR").filter(|_| is_release);
        let root = root.map(PathBuf::from);
        let checkout = root.and_then(|root| checkout(&root)).unwrap_or_default();
        for file in checkout.files {
            println!("cargo::rerun-if-changed={}", file.display());
        }
        checkout.commit
    } else {
        given
    };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit.as_str() {
        "" => version,
        commit => format!("{version} ({commit})"),
    };
    println!("cargo::rustc-env={VARIABLE}={commit}");
    println!("cargo::rustc-env=MEETING_SERVER_VERSION={version}");
    ExitCode::SUCCESS
}

/// What git has checked out.
#[derive(Debug, Default)]
pub(crate) struct Checkout {
    pub(crate) commit: String,
    /// Files that change with it. All of them exist: cargo would build everything anew each time
    /// for one that does not.
    pub(crate) files: Vec<PathBuf>,
}

/// The checkout whose top folder is `root`, where there is one.
pub(crate) fn checkout(root: &Path) -> Option<Checkout> {
    let root = fs::canonicalize(root).ok()?;
    let git = |args: &[&str]| git(&root, args);
    // The sources may have been unpacked within another repository, whose commit is not theirs.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != root {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    // The log of HEAD changes with each commit and checkout; without one, HEAD and its branch do.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    let files = ["logs/HEAD", "HEAD", "packed-refs"].into_iter();
    let files = files.chain(branch.as_deref().filter(|name| *name != "HEAD"));
    let path = |file| git(&["rev-parse", "--git-path", file]).map(|path| root.join(path));
    Some(Checkout {
        commit: commit.get(..SHOWN)?.to_owned(),
        files: files
            .filter_map(path)
            .filter(|path| path.exists())
            .collect(),
    })
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}
