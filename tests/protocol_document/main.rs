//! The pages for client writers are true: every conversation that they show is held with a server,
//! every table of codes is the server's, and all their forms show the same examples.

#[path = "../common/mod.rs"]
mod common;
mod page;
mod replay;

use std::collections::BTreeSet;

use meeting_server::{
    ending::Ending,
    protocol::{
        error::{CONNECTION_GIVEN_UP, CloseCode, ErrorType},
        method::Method,
    },
    stats,
};
use page::{Scene, Step};

const ENGLISH: &str = include_str!("../../docs/protocol.md");
const CHINESE: &str = include_str!("../../docs/protocol.zh-CN.md");
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.yaml");
const SETTINGS: &str = include_str!("../../settings.toml");

/// What is documented so that clients are ready for it, and no server sends yet.
const RESERVED_TYPE: &str = "removed";
const RESERVED_CLOSE: u16 = 4003;

fn texts<'a>(scenes: &'a [Scene], take: impl Fn(&'a Step) -> Option<&'a str>) -> BTreeSet<&'a str> {
    let steps = scenes.iter().flat_map(|scene| &scene.steps);
    steps.filter_map(take).collect()
}

fn said(step: &Step) -> Option<&str> {
    match step {
        Step::Says { text, .. } => Some(text),
        _ => None,
    }
}

fn heard(step: &Step) -> Option<&str> {
    match step {
        Step::Hears(_, text) => Some(text),
        _ => None,
    }
}

#[test]
fn every_conversation_goes_as_the_page_shows() {
    let scenes = page::scenes(ENGLISH);
    let shown: usize = scenes.iter().map(|scene| scene.steps.len()).sum();
    assert!(shown > 100, "the page was not understood: {shown} steps");
    let differences: Vec<String> = scenes
        .iter()
        .flat_map(|scene| {
            let differences = replay::differences(scene).into_iter();
            differences.map(|difference| format!("{} {difference}", scene.server))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn both_languages_show_the_same_conversations_and_tables() {
    let (english, chinese) = (page::scenes(ENGLISH), page::scenes(CHINESE));
    for (english, chinese) in english.iter().zip(&chinese) {
        for (english, chinese) in english.steps.iter().zip(&chinese.steps) {
            assert_eq!(english, chinese);
        }
        assert_eq!(english, chinese);
    }
    assert_eq!(english.len(), chinese.len());
    for table in ["err", "types", "close", "limits"] {
        assert_eq!(page::keys(ENGLISH, table), page::keys(CHINESE, table));
    }
    let headings = |page: &str| -> Vec<usize> {
        let lines = page.lines().filter(|line| line.starts_with('#'));
        lines.map(|line| line.find(' ').unwrap()).collect()
    };
    assert_eq!(headings(ENGLISH), headings(CHINESE));
}

#[test]
fn every_method_event_and_error_type_is_shown() {
    let scenes = page::scenes(ENGLISH);
    let (said, heard) = (texts(&scenes, said), texts(&scenes, heard));
    let shows = |texts: &BTreeSet<&str>, key: &str, value: &str| {
        let needle = format!("\"{key}\":\"{value}\"");
        assert!(texts.iter().any(|text| text.contains(&needle)), "{needle}");
    };
    for method in Method::ALL {
        shows(&said, "method", method.as_str());
    }
    for event in stats::EVENTS {
        shows(&heard, "event", event);
    }
    for stat in ["join", "leave", "publish", "unpublish"] {
        shows(&heard, "stat", stat);
    }
    for kind in error_types() {
        shows(&heard, "type", kind);
    }
    for code in stats::RESULTS.into_iter().flatten() {
        let needle = format!("\"err\":{}", code as u16);
        assert!(heard.iter().any(|text| text.contains(&needle)), "{needle}");
    }
}

/// Those that the server sends.
fn error_types() -> BTreeSet<&'static str> {
    let endings = Ending::ALL.into_iter().filter_map(Ending::error_type);
    let others = [ErrorType::BadMessage, ErrorType::MediaServerDown];
    endings.chain(others).map(ErrorType::as_str).collect()
}

#[test]
fn the_tables_of_codes_are_the_servers() {
    let codes = stats::RESULTS.into_iter().flatten();
    let codes: Vec<String> = codes.map(|code| (code as u16).to_string()).collect();
    assert_eq!(page::keys(ENGLISH, "err"), codes);

    let mut types = error_types();
    types.insert(RESERVED_TYPE);
    let documented = page::keys(ENGLISH, "types");
    assert_eq!(documented.len(), types.len());
    for kind in documented {
        assert!(types.contains(kind.as_str()), "{kind}");
    }

    let closes = Ending::ALL.into_iter().filter_map(Ending::close_code);
    let mut closes: BTreeSet<u16> = closes.map(|code| code as u16).collect();
    closes.extend([
        CloseCode::Normal as u16,
        RESERVED_CLOSE,
        CONNECTION_GIVEN_UP,
    ]);
    let closes: Vec<String> = closes.iter().map(u16::to_string).collect();
    assert_eq!(page::keys(ENGLISH, "close"), closes);
}

#[test]
fn the_table_of_error_types_says_how_each_ends_the_connection() {
    for page in [ENGLISH, CHINESE] {
        for row in page::table(page, "types") {
            let endings = Ending::ALL.into_iter();
            let code = endings
                .filter(|ending| ending.error_type().is_some_and(|t| t.as_str() == row[0]))
                .find_map(Ending::close_code)
                .map(|code| code as u16)
                .or((row[0] == RESERVED_TYPE).then_some(RESERVED_CLOSE));
            let said: String = row[2].chars().filter(char::is_ascii_digit).collect();
            assert_eq!(said.parse().ok(), code, "{row:?}");
        }
    }
}

#[test]
fn the_limits_are_the_defaults_of_the_settings() {
    for page in [ENGLISH, CHINESE] {
        for row in page::table(page, "limits") {
            let is_it = |line: &&str| {
                let value = line.strip_prefix(&row[0]).and_then(|rest| {
                    let rest = rest.strip_prefix(" = ")?;
                    rest.split('#').next()
                });
                value.is_some_and(|value| value.trim().trim_matches('"') == row[1])
            };
            assert!(SETTINGS.lines().any(|line| is_it(&line)), "{row:?}");
        }
    }
}

#[test]
fn every_example_of_the_asyncapi_document_is_one_of_the_page() {
    let scenes = page::scenes(ENGLISH);
    let mut shown = texts(&scenes, said);
    shown.extend(texts(&scenes, heard));
    let payloads = page::payloads(ASYNCAPI);
    assert!(payloads.len() > 20, "the document was not understood");
    for payload in &payloads {
        assert!(shown.contains(payload.as_str()), "{payload}");
    }
}

#[test]
fn white_space_goes_only_between_the_tokens_of_json() {
    assert_eq!(
        page::minified("{ \"a b\" : [1, 2],\n \"c\\\" d\\\\\": \" \" }"),
        r#"{"a b":[1,2],"c\" d\\":" "}"#
    );
    assert_eq!(page::minified("he said { }"), "he said { }");
}
