//! Members that are lost and come back, without a socket: the rules of a room
//! ([`meeting_server::room::state`]) by example. `room_resume_model.rs` has all of them at once.

mod common;

use common::meeting::*;
use meeting_server::{
    ending::Ending,
    grants::{Grants, IssuedAt},
    ids::{ConnectionId, MemberId, SessionId},
    protocol::request::Role,
    room::{
        command::{Answer, Command, Resumption},
        rules::Rules,
    },
};
use serde_json::Value;

const NOTHING: [&str; 0] = [];

// ------------------------------------------------------------------------------ a loss, a return

#[test]
fn a_loss_tells_nobody_and_a_return_brings_what_was_missed() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.names(), ["(anna)", "ben"]);
    assert_eq!(room.log(ben), ["publish anna s1"]);
    room.broadcast(ben, "one");
    let carl = room.join("carl").connection;
    room.broadcast(carl, "two");

    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(back.member, MemberId(1));
    assert_eq!(back.last_event, 6, "at or above every number of the replay");
    assert_eq!(room.session(back.connection), session);
    assert_eq!(
        room.log(back.connection),
        [
            "broadcast ben \"one\"",
            "join carl",
            "broadcast carl \"two\""
        ]
    );
    room.broadcast(ben, "three");
    assert_eq!(room.log(back.connection)[3..], ["broadcast ben \"three\""]);
    assert_eq!(
        room.log(ben)[1..],
        ["join carl", "broadcast carl \"two\""],
        "nobody has noticed"
    );
    let stream = room.state.members().first().unwrap().stream.as_deref();
    assert_eq!(stream, Some(&camera("s1")), "still published");
}

#[test]
fn what_was_not_taken_from_the_lost_connection_is_missed_as_well() {
    for numbered in [true, false] {
        let mut room = Meeting::new(roomy());
        let mut ask = Asks::to_join("anna");
        if !numbered {
            ask = ask.without_numbers();
        }
        let anna = room.ask(ask).connection;
        let session = room.session(anna);
        let ben = room.join("ben").connection;
        room.broadcast(ben, "taken");
        assert_eq!(room.log(anna).len(), 2);
        room.broadcast(ben, "not taken");
        room.lose(anna);
        room.broadcast(ben, "away");
        let mut ask = Asks::to_join("anna").with(&session).knowing(3);
        if !numbered {
            ask = ask.without_numbers();
        }
        let back = room.ask(ask);
        assert!(back.resumed());
        assert_eq!(
            room.log(back.connection),
            ["broadcast ben \"not taken\"", "broadcast ben \"away\""]
        );
    }
}

#[test]
fn a_drop_before_the_first_event_is_resumed() {
    for ask in [
        Asks::to_join("anna").knowing(0),
        Asks::to_join("anna").without_numbers(),
    ] {
        let (mut room, [ben]) = Meeting::of(roomy(), ["ben"]);
        let last_event = ask.last_event;
        let anna = room.ask(ask).connection;
        let session = room.session(anna);
        room.lose(anna);
        room.broadcast(ben, "first");
        let again = Asks {
            last_event,
            ..Asks::to_join("anna").with(&session)
        };
        let back = room.ask(again);
        assert!(back.resumed());
        assert_eq!(room.log(back.connection), ["broadcast ben \"first\""]);
    }
}

#[test]
fn one_that_comes_back_without_numbers_keeps_them_once_it_has_asked_for_them() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert!(back.resumed());
    assert!(room.clients[&back.connection].numbered);
    assert_eq!(room.log(back.connection), ["broadcast ben \"one\""]);
}

#[test]
fn one_that_comes_back_with_numbers_has_them_from_then_on() {
    let mut room = Meeting::new(roomy());
    let anna = room.ask(Asks::to_join("anna").without_numbers()).connection;
    let session = room.session(anna);
    let ben = room.join("ben").connection;
    room.broadcast(ben, "one");
    // She has read nothing, and says so.
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    assert!(back.resumed());
    assert!(room.clients[&back.connection].numbered);
    assert_eq!(
        room.log(back.connection),
        ["join ben", "broadcast ben \"one\""]
    );
}

#[test]
fn a_resume_wipes_neither_device_nor_role() {
    let mut room = Meeting::new(roomy());
    let ask = Asks {
        device: "phone",
        role: Role::Recorder,
        ..Asks::to_join("anna")
    };
    let anna = room.ask(ask).connection;
    let session = room.session(anna);
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    assert!(back.resumed());
    let member = room.state.members().first().unwrap();
    assert_eq!(member.who.device().as_str(), "phone");
    assert_eq!(member.role, Role::Recorder);
}

#[test]
fn a_resume_need_not_name_the_endpoint() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    let session = room.session(anna);
    room.lose(anna);
    let unnamed = Asks {
        named: false,
        ..Asks::to_join("made by the server")
            .with(&session)
            .knowing(1)
    };
    assert!(room.ask(unnamed).resumed());
    assert_eq!(room.names(), ["anna"]);
}

#[test]
fn an_answer_to_a_resume_says_which_request_was_the_last() {
    let mut room = Meeting::new(roomy());
    let ask = Asks {
        cseq: 41,
        ..Asks::to_join("anna")
    };
    let anna = room.ask(ask).connection;
    let session = room.session(anna);
    let last_cseq = |room: &mut Meeting| {
        let ask = Asks {
            cseq: 99,
            ..Asks::to_join("anna").with(&session).knowing(1)
        };
        let back = room.ask(ask);
        let Resumption::Resumed { last_cseq, .. } = back.resumption else {
            panic!("she is back");
        };
        (back.connection, last_cseq)
    };
    room.lose(anna);
    let (again, last) = last_cseq(&mut room);
    assert_eq!(last, cseq(41), "her join was the first");
    room.clients[&again].progress.set_last_cseq(cseq(57));
    room.lose(again);
    let (again, last) = last_cseq(&mut room);
    assert_eq!(last, cseq(57));
    room.lose(again);
    // A resume is no request of the session: what she had sent before it may be sent again.
    assert_eq!(last_cseq(&mut room).1, cseq(57));
}

// ------------------------------------------------------------------------------------- a takeover

#[test]
fn the_newer_of_two_living_connections_goes_on_with_the_session() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.unseated, [(anna, Ending::TakenOver)]);
    assert_eq!(room.log(back.connection), ["broadcast ben \"one\""]);
    assert_eq!(room.log(ben), NOTHING, "nobody else is told");
}

#[test]
fn a_newer_token_without_publish_ends_the_stream_once_for_everybody() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.publish(anna, "s1").unwrap();
    let ask = |known: u64, iat: i64, grants: Grants| Asks {
        issued_at: Some(IssuedAt(iat)),
        grants,
        ..Asks::to_join("anna").with(&session).knowing(known)
    };
    // A takeover: her old connection looked alive.
    let over = room.ask(ask(3, 7, Grants::NONE));
    assert!(over.resumed());
    assert_eq!(room.log(over.connection), ["unpublish anna s1"]);
    assert_eq!(room.log(ben), ["publish anna s1", "unpublish anna s1"]);
    assert_eq!(room.publish(over.connection, "s1"), Err(403));
    assert!(room.state.members().iter().all(|m| m.stream.is_none()));

    // She has missed it, so it is replayed, though she is the one that it is about.
    room.lose(over.connection);
    let back = room.ask(ask(3, 7, Grants::NONE));
    assert_eq!(room.log(back.connection), ["unpublish anna s1"]);
    // An older token gives nothing back, a newer one does.
    room.lose(back.connection);
    let back = room.ask(ask(4, 6, Grants::ALL));
    assert_eq!(room.publish(back.connection, "s1"), Err(403));
    room.lose(back.connection);
    let back = room.ask(ask(4, 8, Grants::ALL));
    room.publish(back.connection, "s1").unwrap();
    assert_eq!(room.log(back.connection), NOTHING);
    assert_eq!(room.log(ben)[2..], ["publish anna s1"]);
}

#[test]
fn a_late_end_or_farewell_of_the_old_connection_changes_nothing() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    let session = room.session(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    for why in [Ending::Lost, Ending::Closed] {
        room.apply(Command::End(MemberId(1), anna, why), None);
        assert_eq!(room.names(), ["anna"]);
    }
    let farewell = room.apply(Command::Leave(MemberId(1), anna), Some(anna));
    assert!(matches!(farewell, Some(Err(410))));
    assert_eq!(room.names(), ["anna"]);
    room.elapse(WINDOW * 2);
    assert_eq!(room.names(), ["anna"]);
    assert!(room.clients.contains_key(&back.connection));
}

#[test]
fn a_late_word_of_the_old_connection_does_not_say_how_far_the_new_one_has_got() {
    let mut room = Meeting::new(roomy());
    let anna = room.ask(Asks::to_join("anna").without_numbers()).connection;
    let ben = room.join("ben").connection;
    room.broadcast(ben, "one");
    let (session, old) = (room.session(anna), room.clients[&anna].progress.clone());
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert_eq!(room.log(back.connection).len(), 2);
    old.set_sent_up_to(0);
    old.set_last_cseq(cseq(1_000));
    room.lose(back.connection);
    let again = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    let Resumption::Resumed {
        last_cseq, missed, ..
    } = again.resumption
    else {
        panic!("she is back");
    };
    assert_eq!((last_cseq, missed), (cseq(1), 0));
}

#[test]
fn an_end_that_comes_after_the_return_it_should_have_come_before_changes_nothing() {
    // The old connection has died; the room hears of it only when the member is back.
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert!(back.resumed());
    room.apply(Command::End(MemberId(1), anna, Ending::Lost), None);
    room.elapse(WINDOW);
    assert_eq!(room.names(), ["anna", "ben"]);
    assert_eq!(
        room.log(back.connection),
        ["join ben", "broadcast ben \"one\""]
    );
}

// ---------------------------------------------------------------------------- the window is over

#[test]
fn who_does_not_come_back_in_time_leaves_stream_first() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    let session = room.session(anna);
    room.lose(anna);
    room.elapse(WINDOW - 1);
    assert_eq!(room.names(), ["(anna)", "ben"]);
    assert_eq!(room.state.due(), Some(WINDOW));
    room.elapse(1);
    assert_eq!(room.names(), ["ben"]);
    assert_eq!(
        room.log(ben),
        ["publish anna s1", "unpublish anna s1", "leave anna"]
    );
    assert_eq!(room.departed, [("anna".to_owned(), Ending::Lost, WINDOW)]);
    let late = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(!late.resumed());
    assert_eq!(late.resumption, Resumption::Failed);
    assert_eq!(late.member, MemberId(3), "an ordinary join");
}

#[test]
fn the_window_is_over_even_where_the_alarm_comes_late() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    room.now += WINDOW;
    let late = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(!late.resumed());
    assert_eq!(room.log(ben), ["leave anna", "join anna"]);
}

#[test]
fn each_is_waited_for_as_long_as_any_other() {
    let (mut room, [anna, ben, carl]) = Meeting::of(roomy(), ["anna", "ben", "carl"]);
    let session = room.session(ben);
    room.lose(anna);
    room.elapse(WINDOW / 2);
    room.lose(ben);
    assert_eq!(room.state.due(), Some(WINDOW));
    room.elapse(WINDOW / 2);
    assert_eq!(room.names(), ["(ben)", "carl"]);
    assert_eq!(room.state.due(), Some(WINDOW + WINDOW / 2));
    // Back, and lost again: the time begins anew.
    let back = room
        .ask(Asks::to_join("ben").with(&session).knowing(3))
        .connection;
    room.elapse(WINDOW / 4);
    room.lose(back);
    room.elapse(WINDOW - 1);
    assert_eq!(room.names(), ["(ben)", "carl"]);
    room.elapse(1);
    assert_eq!(room.names(), ["carl"]);
    assert_eq!(room.log(carl), ["leave anna", "leave ben"]);
}

#[test]
fn an_expiry_of_the_old_session_does_not_throw_out_the_new_one() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    room.lose(anna);
    let again = room.join("anna").connection;
    assert_eq!(room.departed, [("anna".to_owned(), Ending::Replaced, 0)]);
    room.elapse(WINDOW * 2);
    assert_eq!(room.names(), ["anna"]);
    let member = room.clients[&again].member;
    assert_eq!(room.state.members().first().unwrap().id, member);
}

#[test]
fn a_room_in_which_all_are_away_is_not_empty_until_the_last_is_given_up() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.lose(anna);
    room.elapse(WINDOW / 2);
    room.lose(ben);
    assert!(room.state.is_deserted());
    assert!(!room.state.is_empty());
    room.elapse(WINDOW / 2);
    assert!(!room.state.is_empty());
    room.elapse(WINDOW / 2);
    assert!(room.state.is_empty());
    assert_eq!(room.state.due(), None);
    assert!(room.state.history().is_empty());
    assert_eq!(room.state.history().bytes(), 0);
}

#[test]
fn only_a_loss_is_waited_for() {
    for why in Ending::ALL {
        let (mut room, [anna, _ben]) = Meeting::of(roomy(), ["anna", "ben"]);
        room.end(anna, why);
        let waited_for = [
            Ending::GivenUp,
            Ending::Lost,
            Ending::Idle,
            Ending::SendTimeout,
            Ending::SlowConsumer,
            Ending::TakenOver,
            Ending::RoomFailed,
            Ending::Shutdown,
        ];
        let expected: &[&str] = if waited_for.contains(&why) {
            &["(anna)", "ben"]
        } else {
            &["ben"]
        };
        assert_eq!(room.names(), expected, "{why:?}");
    }
}

#[test]
fn without_a_window_a_loss_is_a_leave_and_nothing_is_kept() {
    let rules = Rules::default();
    let (mut room, [anna, ben]) = Meeting::of(rules, ["anna", "ben"]);
    room.broadcast(ben, "one");
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.log(ben), ["leave anna"]);
    assert!(room.state.history().is_empty());
    assert!(
        !room
            .ask(Asks::to_join("anna").with(&session).knowing(2))
            .resumed()
    );
}

#[test]
fn at_a_shutdown_nobody_is_waited_for_once_nobody_is_there() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.lose(anna);
    room.end(ben, Ending::Shutdown);
    assert!(room.state.is_deserted());
    room.apply(Command::Abandon, None);
    assert!(room.state.is_empty());
    assert_eq!(room.departed.len(), 2);
}

// --------------------------------------------------------------------------- a member like others

#[test]
fn a_member_that_is_away_is_dumped_and_keeps_its_stream_id() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    room.lose(anna);
    assert_eq!(room.publish(ben, "s1"), Err(409));
    let Some(Ok(Answer::Dump(list))) = room.apply(Command::Dump(MemberId(2)), Some(ben)) else {
        panic!("a dump");
    };
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[0]["endpoint"], "anna");
    assert_eq!(list[0]["stream"]["stream_id"], "s1");
}

#[test]
fn a_member_that_is_away_counts_and_its_return_needs_no_place() {
    let rules = Rules {
        max_members: 2,
        ..roomy()
    };
    let (mut room, [anna, _ben]) = Meeting::of(rules, ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.join("carl").code, 503);
    assert!(
        room.ask(Asks::to_join("anna").with(&session).knowing(2))
            .resumed()
    );
}

#[test]
fn who_comes_back_without_its_session_may_publish_the_same_stream_at_once() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    room.lose(anna);
    let again = room.join("anna").connection;
    assert_eq!(room.publish(again, "s1"), Ok(()));
    assert_eq!(
        room.log(ben),
        [
            "publish anna s1",
            "unpublish anna s1",
            "leave anna",
            "join anna",
            "publish anna s1"
        ]
    );
}

#[test]
fn who_left_while_one_was_away_is_seen_to_leave() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(ben, "s1").unwrap();
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.end(ben, Ending::Closed);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), ["unpublish ben s1", "leave ben"]);
}

// ----------------------------------------------------------------------------- what is not resumed

/// A join with this session is an ordinary one, and its own member goes on waiting untouched.
fn touches_nothing(room: &mut Meeting, ask: Asks<'_>) {
    let before: Vec<_> = room
        .state
        .members()
        .iter()
        .map(|m| (m.id, m.session, m.presence))
        .collect();
    let stranger = room.ask(ask);
    assert_eq!(stranger.code, 0, "never an error");
    assert_eq!(stranger.resumption, Resumption::Failed);
    let after = room
        .state
        .members()
        .iter()
        .map(|m| (m.id, m.session, m.presence));
    assert_eq!(after.take(before.len()).collect::<Vec<_>>(), before);
}

#[test]
fn a_failed_or_forged_attempt_to_resume_touches_nothing_of_the_member_it_names() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.broadcast(ben, "one");
    // Another endpoint's, with a session that is none, and one that knows what has not happened
    // (under another endpoint's name, since a join takes its endpoint's place).
    touches_nothing(&mut room, Asks::to_join("carl").with(&session).knowing(2));
    touches_nothing(
        &mut room,
        Asks::to_join("dora").with(&SessionId::generate()),
    );
    let unnamed = Asks {
        named: false,
        ..Asks::to_join("made by the server")
            .with(&session)
            .knowing(1_000)
    };
    touches_nothing(&mut room, unnamed);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection)[0], "broadcast ben \"one\"");
}

#[test]
fn a_join_that_cannot_go_on_takes_its_endpoints_place_as_any_join_does() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    let ahead = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert_eq!(ahead.resumption, Resumption::Failed);
    assert_ne!(room.session(ahead.connection), session);
    assert_eq!(room.log(ben), ["leave anna", "join anna"]);
}

#[test]
fn a_session_of_another_endpoint_does_not_bring_its_member_back() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    let ask = room.ask(Asks::to_join("ben").with(&session).knowing(2));
    assert_eq!(ask.resumption, Resumption::Failed);
    assert_eq!(room.unseated, [(ben, Ending::Replaced)]);
    assert_eq!(room.names(), ["anna", "ben"]);
}

// ------------------------------------------------------------------------------ what is kept

#[test]
fn a_session_that_was_quiet_for_longer_than_the_history_is_long_has_missed_nothing() {
    let (mut room, [anna, _ben]) = Meeting::of(rules(4, 1_000_000), ["anna", "ben"]);
    room.take(anna);
    let session = room.session(anna);
    room.elapse(AGE * 10);
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), NOTHING);
}

#[test]
fn a_session_whose_own_many_broadcasts_filled_the_history_has_missed_nothing() {
    let (mut room, [anna, ben]) = Meeting::of(rules(4, 1_000_000), ["anna", "ben"]);
    let session = room.session(anna);
    room.broadcast(ben, "one");
    room.take(anna);
    for n in 0..100 {
        room.broadcast(anna, &n.to_string());
    }
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), NOTHING);
    // Not so Ben, who has read none of it.
    let session = room.session(ben);
    room.lose(ben);
    let back = room.ask(Asks::to_join("ben").with(&session).knowing(3));
    assert_eq!(back.resumption, Resumption::Failed);
}

#[test]
fn who_needs_more_than_is_kept_joins_anew() {
    for bounds in [rules(3, 1_000_000), rules(100, 500)] {
        let (mut room, [anna, ben]) = Meeting::of(bounds, ["anna", "ben"]);
        room.take(anna);
        let session = room.session(anna);
        room.lose(anna);
        for n in 0..10 {
            room.broadcast(ben, &n.to_string());
        }
        let kept = room.state.history().len();
        assert!((2..=4).contains(&kept), "{kept}");
        assert!(room.state.history().bytes() <= 1_000_000);
        let first_kept = 12 - kept as u64;
        let ask = |after| Asks::to_join("anna").with(&session).knowing(after);
        assert_eq!(room.ask(ask(first_kept - 1)).resumption, Resumption::Failed);
    }
}

#[test]
fn who_needs_exactly_what_is_kept_goes_on() {
    let (mut room, [anna, ben]) = Meeting::of(rules(3, 1_000_000), ["anna", "ben"]);
    room.take(anna);
    let session = room.session(anna);
    room.lose(anna);
    for n in 0..10 {
        room.broadcast(ben, &n.to_string());
    }
    // 3 to 12 went out, 10 to 12 are kept.
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(9));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection).len(), 3);
}

#[test]
fn what_is_too_old_goes() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.broadcast(ben, "one");
    assert_eq!(room.state.history().len(), 2, "Ben's join and his word");
    room.elapse(AGE);
    assert_eq!(room.state.history().len(), 2);
    room.elapse(1);
    assert!(room.state.history().is_empty());
    assert!(room.state.history().bytes() == 0);
    let session = room.session(anna);
    room.lose(anna);
    // She has never read it, so she would have to be told.
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert_eq!(back.resumption, Resumption::Failed);
}

#[test]
fn what_nobody_present_could_need_is_not_kept() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    for _ in 0..10 {
        room.broadcast(anna, "to myself");
    }
    assert!(room.state.history().is_empty());
    let ben = room.join("ben").connection;
    room.broadcast(ben, "for Anna");
    room.broadcast(anna, "for Ben");
    assert_eq!(room.state.history().len(), 3);
    let carl = room.join("carl").connection;
    room.broadcast(carl, "for both");
    assert_eq!(room.state.history().len(), 5);
    // What only Ben had not said himself.
    room.end(ben, Ending::Closed);
    let kept = room.state.history().len();
    assert_eq!(kept, 5, "his join, his word, Carl's, and that he has left");
    room.end(anna, Ending::Closed);
    assert_eq!(
        room.state.history().len(),
        2,
        "Carl came after all but the two ends"
    );
}

// ------------------------------------------------------------------------------ a mass expiry

/// A room of this many members that were lost at one moment, and of ben, who is attached.
fn room_of_lost(count: usize) -> (Meeting, ConnectionId, Vec<SessionId>) {
    let (mut room, [ben]) = Meeting::of(roomy(), ["ben"]);
    let lost: Vec<_> = (0..count)
        .map(|n| room.join(&format!("lost {n}")).connection)
        .collect();
    let sessions = lost.iter().map(|lost| room.session(*lost)).collect();
    for connection in lost {
        room.lose(connection);
    }
    (room, ben, sessions)
}

#[test]
fn a_mass_expiry_comes_in_batches_and_loses_nothing() {
    let (mut room, ben, _) = room_of_lost(200);
    room.log(ben);
    room.now += WINDOW;
    let mut left = Vec::new();
    while room.state.is_overdue(room.now) {
        assert_eq!(room.state.due(), Some(WINDOW), "the rest is due at once");
        room.carry_out(Command::Elapse, None);
        left.push(room.state.detached());
    }
    assert_eq!(left, [136, 72, 8, 0]);
    let expected: Vec<_> = (0..200).map(|n| format!("leave lost {n}")).collect();
    assert_eq!(room.log(ben)[200..], expected, "the longest lost first");
}

#[test]
fn many_receivers_make_the_batches_of_an_expiry_smaller() {
    let (mut room, _, _) = room_of_lost(100);
    while room.state.members().receivers().len() < 1_024 {
        room.join(&format!("there {}", room.state.members().len()));
    }
    room.now += WINDOW;
    room.carry_out(Command::Elapse, None);
    assert_eq!(room.state.detached(), 100 - 32);
}

#[test]
fn a_member_whose_batch_is_still_to_come_is_not_resumed() {
    let (mut room, _, sessions) = room_of_lost(200);
    room.now += WINDOW;
    room.carry_out(Command::Elapse, None);
    let last = room.ask(Asks::to_join("lost 199").with(&sessions[199]));
    assert_eq!(last.resumption, Resumption::Failed);
    assert_eq!(
        room.state
            .members()
            .with_session(&(&sessions[199]).into())
            .map(|m| m.id),
        None
    );
}
