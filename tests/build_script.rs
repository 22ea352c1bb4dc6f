//! The build script finds the commit of its own checkout, and of no other.

#[path = "../build.rs"]
#[allow(
    dead_code,
    clippy::print_stdout,
    reason = "the script's main is for cargo"
)]
mod build;

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, id},
};

/// Runs git without any configuration of the user. Returns what it prints.
fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn folder(name: &str) -> PathBuf {
    let name = format!("build-script-{}-{name}", id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

fn commit(folder: &Path) -> String {
    git(folder, &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(folder, &["rev-parse", "HEAD"])
}

#[test]
fn the_commit_of_the_checkout_is_found() {
    if Command::new("git").arg("--version").output().is_err() {
        let missing = "git is not installed";
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
        // Past the harness, which shows nothing of a test that passes.
        writeln!(io::stderr(), "SKIPPED: {missing}").expect("standard error takes a line");
        return;
    }
    let repository = folder("repository");
    git(&repository, &["init", "-q"]);
    assert!(build::checkout(&repository).is_none(), "no commit yet");
    let first = commit(&repository);
    let found = build::checkout(&repository).unwrap();
    assert_eq!(found.commit, first[..12]);
    assert!(!found.files.is_empty());
    assert!(found.files.iter().all(|file| file.exists()), "{found:?}");
    // A file that cargo watches changes with a commit.
    let contents = |files: &[PathBuf]| -> Vec<Vec<u8>> {
        let read = files.iter().map(|file| fs::read(file).unwrap());
        read.collect()
    };
    let before = contents(&found.files);
    git(&repository, &["commit", "-q", "--allow-empty", "-m", "two"]);
    assert_ne!(contents(&found.files), before);
    let second = git(&repository, &["rev-parse", "HEAD"]);
    let found = build::checkout(&repository).unwrap();
    assert_eq!(found.commit, second[..12]);

    // Sources that were unpacked within a repository are not its own.
    let unpacked = repository.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    assert!(build::checkout(&unpacked).is_none());

    // The `.git` of a worktree is a file.
    let parent = folder("worktree");
    let worktree = parent.join("tree");
    let name = worktree.to_str().unwrap();
    let args = ["worktree", "add", "-q", "--detach", name, &first];
    git(&repository, &args);
    assert!(worktree.join(".git").is_file());
    let found = build::checkout(&worktree).unwrap();
    assert_eq!(found.commit, first[..12]);
    assert!(!found.files.is_empty());
    assert!(found.files.iter().all(|file| file.exists()), "{found:?}");

    fs::remove_dir_all(parent).unwrap();
    fs::remove_dir_all(repository).unwrap();
}
