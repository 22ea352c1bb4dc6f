//! What the log says of a room and those in it, but for how their connections end: that is logged
//! where it is known ([`crate::membership`]).

use std::{rc::Rc, time::Duration};

use crate::{
    clock::Millis,
    ending::Ending,
    handshake::ShownAddress,
    ids::{RoomName, SessionId},
    protocol::{
        event::{RoomEvent, Who},
        request::Role,
    },
    room::{
        command::{Joined, Resumption},
        state::RoomState,
    },
};

/// The log of one room.
pub(super) struct Journal {
    pub(super) name: Rc<RoomName>,
}

impl Journal {
    /// Who published what. Who comes and goes is logged where it is known as whom and why; what
    /// people say to each other is nobody's.
    pub(super) fn stream(&self, event: &RoomEvent, publisher: SessionId) {
        let (what, who, stream) = match event {
            RoomEvent::Publish(who, stream) => ("publish", who, stream),
            RoomEvent::Unpublish(who, stream) => ("unpublish", who, stream),
            RoomEvent::Join(_) | RoomEvent::Leave(_) | RoomEvent::Broadcast(..) => return,
        };
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            endpoint = who.endpoint().as_str(),
            sid = publisher.sid(),
            stream = stream.as_str();
            "{what}"
        );
    }

    /// Somebody has joined, or is back. `members`: how many there are now.
    pub(super) fn joined(&self, joined: &Joined, role: Role, members: usize, client: ShownAddress) {
        let (app, channel) = (self.name.app.as_str(), self.name.channel.as_str());
        let endpoint = joined.who.endpoint().as_str();
        if let Resumption::Resumed { away, missed, .. } = joined.resumption {
            log::info!(
                app = app,
                channel = channel,
                endpoint = endpoint,
                sid = joined.session.sid(),
                client:% = client,
                away_seconds = away.map(seconds),
                missed_events = missed;
                "resume"
            );
            return;
        }
        log::info!(
            app = app,
            channel = channel,
            endpoint = endpoint,
            sid = joined.session.sid(),
            client:% = client,
            device = joined.who.device().as_str(),
            role = role.as_str(),
            members = members,
            resumed = (joined.resumption == Resumption::Failed).then_some(false);
            "join"
        );
    }

    /// One who was waited for is a member no more.
    pub(super) fn departed(&self, session: SessionId, who: &Who, why: Ending, away: Millis) {
        if why == Ending::Shutdown {
            // Logged where its connection ended, as for good.
            return;
        }
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            endpoint = who.endpoint().as_str(),
            sid = session.sid(),
            why = why.as_str(),
            away_seconds = seconds(away);
            "leave"
        );
    }

    /// The room is no more.
    pub(super) fn closed(&self, open: Duration, most_members: usize, state: &RoomState) {
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            seconds = open.as_secs_f64(),
            most_members = most_members,
            members_in_all = state.joins(),
            events = state.last_event();
            "room closed"
        );
    }

    /// The room died of a defect.
    pub(super) fn failed(&self, members: usize) {
        log::error!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            members = members;
            "a room failed"
        );
    }
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1e3
}
