//! A page of the protocol as a test reads it: conversations, and tables.

use std::collections::BTreeSet;

/// Something that the page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `anna connects /ws?…`
    Connects(String, String),
    /// `anna →`, or `ben ⇢` where the answer is left out; what she sends, without white space.
    Says {
        who: String,
        text: String,
        is_answer_shown: bool,
    },
    /// `anna ←`
    Hears(String, String),
    /// `anna → close 4900`
    Closes(String, u16),
    /// `anna ← close 1001`
    IsClosed(String, u16),
    /// Anything else: the test knows how to bring it about.
    Happens(String),
}

/// A conversation with one server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scene {
    /// Which server: `<!-- server: NAME -->`.
    pub(crate) server: String,
    pub(crate) steps: Vec<Step>,
}

/// The conversations of a page. Every block of JSON or text belongs to one.
pub(crate) fn scenes(page: &str) -> Vec<Scene> {
    let mut scenes: Vec<Scene> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        if let Some(server) = comment(line, "server: ") {
            let (server, steps) = (server.to_owned(), Vec::new());
            scenes.push(Scene { server, steps });
        } else if let Some(caption) = caption(line) {
            let mut block = || {
                let fence = lines.find(|(_, line)| !line.is_empty());
                let is_block = fence.is_some_and(|(_, l)| l == "```json" || l == "```text");
                assert!(is_block, "line {}: a block follows `{caption}`", n + 1);
                let inside = lines.by_ref().map(|(_, line)| line);
                let text: Vec<&str> = inside.take_while(|line| *line != "```").collect();
                minified(&text.join("\n"))
            };
            let step = step(caption, &mut block);
            let scene = scenes.last_mut();
            scene.expect("a server comes first").steps.push(step);
        } else {
            let stray = line.starts_with("```json") || line.starts_with("```text");
            assert!(!stray, "line {}: nobody says this block", n + 1);
            if line.starts_with("```") {
                lines.find(|(_, line)| *line == "```");
            }
        }
    }
    scenes.retain(|scene| scene.server != "none" || !scene.steps.is_empty());
    scenes
}

fn step(caption: &str, block: &mut dyn FnMut() -> String) -> Step {
    let words: Vec<&str> = caption.split(' ').collect();
    let code = |code: &str| code.parse().expect(caption);
    match words[..] {
        [who, "connects", path] => Step::Connects(who.into(), path.into()),
        [who, arrow @ ("→" | "⇢")] => Step::Says {
            who: who.into(),
            text: block(),
            is_answer_shown: arrow == "→",
        },
        [who, "←"] => Step::Hears(who.into(), block()),
        [who, "→", "close", number] => Step::Closes(who.into(), code(number)),
        [who, "←", "close", number] => Step::IsClosed(who.into(), code(number)),
        _ => Step::Happens(caption.into()),
    }
}

/// The text of a line that is nothing but code.
fn caption(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.is_empty() && !inner.contains('`')).then_some(inner)
}

fn comment<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix("<!-- ")?
        .strip_prefix(key)?
        .strip_suffix(" -->")
}

/// The cells of the rows of the table that `<!-- table: NAME -->` announces, without its head.
pub(crate) fn table(page: &str, name: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines();
    lines
        .find(|line| comment(line, "table: ") == Some(name))
        .unwrap_or_else(|| panic!("there is no table {name}"));
    let rows = lines
        .skip_while(|line| line.is_empty())
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    })
    .collect()
}

/// The first cell of each row.
pub(crate) fn keys(page: &str, name: &str) -> Vec<String> {
    let rows = table(page, name).into_iter();
    rows.map(|mut row| row.swap_remove(0)).collect()
}

/// The payloads of the examples in an AsyncAPI document, which writes each on a line of its own,
/// as JSON.
pub(crate) fn payloads(yaml: &str) -> BTreeSet<String> {
    yaml.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("- ").unwrap_or(line);
            line.strip_prefix("payload: ")
        })
        .filter(|payload| payload.starts_with('{'))
        .map(minified)
        .collect()
}

/// JSON without the white space between its tokens. Other text stays as it is.
pub(crate) fn minified(text: &str) -> String {
    if !text.trim_start().starts_with('{') {
        return text.to_owned();
    }
    let (mut in_string, mut escaped) = (false, false);
    text.chars()
        .filter(|c| {
            if in_string {
                (in_string, escaped) = (escaped || *c != '"', !escaped && *c == '\\');
                return true;
            }
            in_string = *c == '"';
            !c.is_whitespace()
        })
        .collect()
}
