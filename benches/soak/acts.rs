//! What a member does: all that people, apps, networks and rogues do to servers.

use std::{rc::Rc, time::Duration};

use tokio::time::{sleep_until, timeout};

use super::{
    ears::SENT_AT,
    member::{Lost, Member},
    room::How,
    wire::{connection::Connection, frame},
    world::{CAFES, IDLE_TIMEOUT, RESUME_WINDOW},
};

/// How long all the others may take to be there and hear it too.
const WAIT_FOR_THE_LAST_WORD: Duration = Duration::from_secs(150);

/// One thing that a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Speak,
    Publish,
    Unpublish,
    Dump,
    Move,
    Visit,
    Leave,
    Reset,
    EndOfStream,
    MidFrame,
    GiveUp,
    Vanish,
    TakeOver,
    TooLate,
    Stuck,
    TrickleIn,
    TrickleOut,
    Replace,
    Flood,
    Offend,
    Mumble,
}

/// Their names in the report, and how often they happen.
const ACTS: [(Act, &str, usize); 21] = [
    (Act::Speak, "speak", 300),
    (Act::Publish, "publish", 80),
    (Act::Unpublish, "unpublish", 60),
    (Act::Dump, "dump", 60),
    (Act::Move, "move", 80),
    (Act::Visit, "visit", 30),
    (Act::Leave, "leave", 40),
    (Act::Reset, "reset", 50),
    (Act::EndOfStream, "end of stream", 40),
    (Act::MidFrame, "mid-frame", 40),
    (Act::GiveUp, "give up", 40),
    (Act::Vanish, "vanish", 10),
    (Act::TakeOver, "take over", 40),
    (Act::TooLate, "too late", 15),
    (Act::Stuck, "stuck", 25),
    (Act::TrickleIn, "trickle in", 20),
    (Act::TrickleOut, "trickle out", 20),
    (Act::Replace, "replace", 30),
    (Act::Flood, "flood", 4),
    (Act::Offend, "offend", 20),
    (Act::Mumble, "mumble", 20),
];

impl Member {
    /// Lives until the round is over, and then is there.
    pub(crate) async fn live(&mut self) {
        while !self.world.is_over() {
            if !self.is_connected() {
                self.come_back().await;
                continue;
            }
            let pace = self.world.pace;
            let pause = Duration::from_secs_f64(self.random.between(0.0, 2.0 * pace));
            let done = match self.listen_for(pause).await {
                Ok(()) if self.world.is_over() => break,
                Ok(()) => {
                    let act = self.choose();
                    self.act(act).await
                }
                Err(lost) => Err(lost),
            };
            if let Err(lost) = done {
                self.lost(lost);
                self.go_home();
            }
        }
        while !self.is_connected() {
            self.come_back().await;
        }
    }

    /// Where it was lost while it visited a room in which nobody watches, it does not go on there.
    fn go_home(&mut self) {
        if self.ears.room.is_none() {
            self.session_is_over(How::Cut);
            let room = self.world.any_room(&mut self.random);
            self.wants(&room);
        }
    }

    fn choose(&mut self) -> Act {
        let all: usize = ACTS.iter().map(|(.., weight)| weight).sum();
        let mut at = self.random.below(all);
        for (act, name, weight) in ACTS {
            if at < weight {
                // Without event numbers it cannot tell what it has missed.
                let act = match act {
                    _ if self.numbered => act,
                    Act::Speak | Act::Publish | Act::Unpublish | Act::Dump => act,
                    Act::Move | Act::Visit | Act::Replace | Act::Offend | Act::Leave => act,
                    _ => Act::Mumble,
                };
                self.world.figures.acts.add(name);
                return act;
            }
            at -= weight;
        }
        Act::Speak
    }

    async fn act(&mut self, act: Act) -> Result<(), Lost> {
        match act {
            Act::Speak => self.speak().await,
            Act::Publish => {
                let stream = self.any_stream();
                let data = format!(
                    r#"{{"stream":{{"type":"camera","stream_id":"{stream}","has_video":true,"has_audio":true}}}}"#
                );
                self.call("stream.add", &data, &[0, 409, 429]).await?;
                Ok(())
            }
            Act::Unpublish => {
                let data = format!(r#"{{"stream_id":"{}"}}"#, self.any_stream());
                self.call("stream.delete", &data, &[0, 404, 429]).await?;
                Ok(())
            }
            Act::Dump => self.dump().await,
            Act::Move => self.move_on().await,
            Act::Visit => self.visit().await,
            Act::Leave => self.leave_and_return().await,
            Act::Reset | Act::EndOfStream | Act::MidFrame | Act::GiveUp | Act::TooLate => {
                self.be_lost(act).await;
                Ok(())
            }
            Act::Vanish => self.vanish().await,
            Act::TakeOver => {
                self.come_back().await;
                Ok(())
            }
            Act::Stuck => self.be_stuck().await,
            Act::TrickleIn => self.trickle_in().await,
            Act::TrickleOut => self.trickle_out().await,
            Act::Replace => self.be_replaced().await,
            Act::Flood => self.flood().await,
            Act::Offend => self.offend().await,
            Act::Mumble => self.mumble().await,
        }
    }

    /// One of few, so that there are conflicts.
    fn any_stream(&mut self) -> String {
        match self.random.below(3) {
            0 => format!("shared {}", self.random.below(3)),
            _ => format!("of {}", self.ears.endpoint),
        }
    }

    /// A broadcast's `data`, of some length, that says when it was born.
    fn words(&mut self) -> String {
        let length = self.random.pick(&[0, 50, 150, 300, 1000]);
        let now = self.world.nanos();
        format!(r#"{{{SENT_AT}{now},"text":"{:length$}"}}"#, "")
    }

    async fn speak(&mut self) -> Result<(), Lost> {
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 5]) {
            let words = self.words();
            if self.random.below(4) == 0 {
                self.ask("broadcast", &words);
            } else {
                self.call("broadcast", &words, &[0, 429]).await?;
            }
        }
        Ok(())
    }

    async fn dump(&mut self) -> Result<(), Lost> {
        let answer = self.call("channel.dump", "{}", &[0, 429]).await?;
        let me = format!(r#""endpoint":"{}""#, self.ears.endpoint);
        if answer.err == 0 && !answer.data.contains(&me) {
            self.misbehaved("a channel.dump without the one who asks");
        }
        Ok(())
    }

    /// Leaves for another room, perhaps of another thread, on the same connection; sometimes
    /// without waiting in between.
    async fn move_on(&mut self) -> Result<(), Lost> {
        let room = self.world.any_room(&mut self.random);
        if self.random.below(2) == 0 {
            self.call("channel.leave", "{}", &[0]).await?;
            self.session_is_over(How::Left);
            let channel = room.channel.clone();
            return self.enter(Some(room), &channel).await;
        }
        let left = self.ask("channel.leave", "{}");
        self.channel.clone_from(&room.channel);
        let join = self.join_request("");
        let joined = left + 1;
        self.send(&join);
        self.answer(left, "channel.leave").await?;
        self.session_is_over(How::Left);
        self.ears.room = Some(room);
        self.joined("", joined).await
    }

    /// Goes to a room where nobody watches and which may end at any moment, and comes back.
    async fn visit(&mut self) -> Result<(), Lost> {
        let Some(home) = self.ears.room.clone() else {
            return Ok(());
        };
        self.call("channel.leave", "{}", &[0]).await?;
        self.session_is_over(How::Left);
        let cafe = format!("cafe {}", self.random.below(CAFES));
        self.enter(None, &cafe).await?;
        for _ in 0..self.random.below(3) {
            self.speak().await?;
        }
        self.call("channel.leave", "{}", &[0]).await?;
        self.session_is_over(How::Left);
        let channel = home.channel.clone();
        self.enter(Some(home), &channel).await
    }

    /// Closes in order, and comes again some time later, to any room.
    async fn leave_and_return(&mut self) -> Result<(), Lost> {
        if let Some(connection) = self.neglect() {
            connection.close(1000);
        }
        let end = self.hear_the_end().await;
        if end != Lost::Closed(1000) {
            self.doubtful(&format!("its close frame is answered by {end:?}"));
        }
        self.lost(end);
        let room = self.world.any_room(&mut self.random);
        self.wants(&room);
        let pause = Duration::from_secs_f64(self.random.between(0.0, 2.0));
        sleep_until(self.world.after(pause).into()).await;
        Ok(())
    }

    /// Loses its connection in some way, and comes back after a while.
    async fn be_lost(&mut self, act: Act) {
        if let Some(connection) = self.take_connection() {
            self.end(connection, act);
        }
        let window = RESUME_WINDOW.as_secs_f64();
        let away = match act {
            Act::TooLate => self.random.between(window + 1.0, window + 3.0),
            _ => {
                let soon = self.random.between(0.0, 0.5);
                let late = self.random.between(0.0, window * 0.7);
                self.random.pick(&[0.0, soon, soon, late])
            }
        };
        let away = Duration::from_secs_f64(away);
        sleep_until(self.world.after(away).into()).await;
        self.come_back().await;
    }

    fn end(&mut self, mut connection: Connection, act: Act) {
        match act {
            Act::EndOfStream => connection.shut_down(),
            Act::MidFrame => {
                let mut bytes = Vec::new();
                frame::write(frame::TEXT, &[b' '; 1000], &mut bytes);
                let part = self.random.pick(&[1, 3, 7, 500]);
                connection.send_bytes(&bytes[..part]);
                if self.random.below(2) == 0 {
                    connection.reset();
                }
            }
            Act::GiveUp => connection.close(4900),
            _ => connection.reset(),
        }
    }

    /// Its network is gone: it neither reads nor writes until the server has found that out.
    async fn vanish(&mut self) -> Result<(), Lost> {
        let Some(grave) = self.take_connection() else {
            return Ok(());
        };
        let silent = self.random.between(0.5, 1.2) * IDLE_TIMEOUT.as_secs_f64();
        let back = self.world.after(Duration::from_secs_f64(silent));
        self.world.bury(grave);
        sleep_until(back.into()).await;
        self.come_back().await;
        Ok(())
    }

    /// Comes over a bad network.
    async fn be_narrow(&mut self) -> bool {
        self.neglect();
        let mut route = self.world.route();
        route.narrow = true;
        let connection = self.connect(route).await;
        self.come_back_over(connection).await;
        self.is_connected()
    }

    /// Asks and asks and does not read. It is put out, or has much to read.
    async fn be_stuck(&mut self) -> Result<(), Lost> {
        if !self.be_narrow().await {
            return Ok(());
        }
        self.neglect();
        let most = self.random.pick(&[0, 20, 60, 150]);
        for _ in 0..most {
            self.ask("channel.dump", "{}");
        }
        let away = Duration::from_secs_f64(self.random.between(0.5, 3.0));
        sleep_until(self.world.after(away).into()).await;
        self.catch_up().await
    }

    /// Reads what has gathered: then it is as good as any other, or was put out.
    async fn catch_up(&mut self) -> Result<(), Lost> {
        self.call("channel.dump", "{}", &[0, 429]).await?;
        self.look_after();
        // Over a good network again, or it would be put out at the next flood.
        self.come_back().await;
        Ok(())
    }

    /// Reads a few bytes at a time.
    async fn trickle_in(&mut self) -> Result<(), Lost> {
        if !self.be_narrow().await {
            return Ok(());
        }
        let bytes = self.random.pick(&[1, 20, 200, 2000]);
        let (pause, times) = (Duration::from_millis(20), self.random.pick(&[20, 60, 150]));
        let Some(connection) = self.neglect() else {
            return Ok(());
        };
        // Whether it has ended is seen when what has come is read.
        connection.trickle(bytes, pause, times).await;
        self.catch_up().await
    }

    /// Says something a few bytes at a time.
    async fn trickle_out(&mut self) -> Result<(), Lost> {
        let words = self.words().replace(SENT_AT, r#""said_at":"#);
        let text = self.request("broadcast", &words);
        let mut bytes = Vec::new();
        frame::write(frame::TEXT, text.as_bytes(), &mut bytes);
        self.neglect();
        for part in bytes.chunks(self.random.pick(&[7, 40, 100])) {
            self.send_bytes(part);
            // Without reading: a pong would end up within the frame.
            let pause = self.world.after(Duration::from_millis(10));
            sleep_until(pause.into()).await;
        }
        let cseq = self.last_cseq();
        self.answer(cseq, "broadcast").await?;
        self.look_after();
        Ok(())
    }

    /// A newcomer takes its place, with the same name, that knows nothing of its session.
    async fn be_replaced(&mut self) -> Result<(), Lost> {
        let Some(room) = self.ears.room.clone() else {
            return Ok(());
        };
        let (world, numbered) = (self.world.clone(), self.numbered);
        let endpoint = self.ears.endpoint.clone();
        let mut newcomer = Self::new(world, endpoint, self.random.clone(), numbered);
        newcomer.wants(&room);
        self.neglect();
        newcomer.come_back().await;
        if !newcomer.is_connected() {
            return self.catch_up().await;
        }
        let end = self.hear_the_end().await;
        if end != Lost::Closed(4001) {
            self.doubtful(&format!("its place is taken, and it hears {end:?}"));
        }
        self.lost(end);
        self.random.next();
        newcomer.random = self.random.clone();
        *self = newcomer;
        Ok(())
    }

    /// Says far too much at once.
    async fn flood(&mut self) -> Result<(), Lost> {
        self.provokes = true;
        let times = self.random.pick(&[150, 300, 500]);
        let mut last = 0;
        for n in 0..times {
            last = self.ask("broadcast", &format!(r#"{{"flood":{n}}}"#));
        }
        self.answer(last, "broadcast").await?;
        // Its bucket is empty: it fills, or even pongs would be too many.
        self.listen_for(Duration::from_secs(3)).await?;
        self.provokes = false;
        Ok(())
    }

    /// Breaks the protocol, and is closed.
    async fn offend(&mut self) -> Result<(), Lost> {
        let how = self.random.below(4);
        let Some(connection) = self.neglect() else {
            return Ok(());
        };
        let code = match how {
            0 => {
                connection.send_frame(frame::BINARY, b"\x00\x01");
                1003
            }
            1 => {
                connection.send_frame(frame::TEXT, b"\"\xff\"");
                1007
            }
            2 => {
                // Of a message that is too long the header is enough.
                connection.send_bytes(&[0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0]);
                1009
            }
            _ => {
                // A frame that is not masked.
                connection.send_bytes(&[0x81, 2, b'{', b'}']);
                1002
            }
        };
        let end = self.hear_the_end().await;
        if end != Lost::Closed(code) {
            self.doubtful(&format!("{code} was due, it is closed by {end:?}"));
        }
        Err(end)
    }

    /// Says things that cannot be done.
    async fn mumble(&mut self) -> Result<(), Lost> {
        match self.random.below(4) {
            0 => self.send("no JSON"),
            1 => {
                self.call("channel.bow", "{}", &[404, 429]).await?;
            }
            2 => {
                self.call("stream.add", r#"{"stream":7}"#, &[400, 429])
                    .await?;
            }
            _ => {
                let before = std::mem::replace(&mut self.ears.session, "nobody's".to_owned());
                let cseq = self.ask("channel.dump", "{}");
                self.ears.session = before;
                let answer = self.answer(cseq, "channel.dump").await?;
                if ![410, 429].contains(&answer.err) {
                    self.misbehaved(&format!("410 was due: {answer:?}"));
                }
            }
        }
        Ok(())
    }

    /// It was lost, and could not go on with its session.
    fn came_after_the_last_word(&self) -> bool {
        let last_word = self
            .ears
            .room
            .as_ref()
            .and_then(|room| room.last_word.get());
        let joined = self.ears.life.as_ref().map(|life| life.joined());
        last_word
            .zip(joined)
            .is_some_and(|(word, joined)| word < joined)
    }

    /// Waits for the last word, and longer than for that where it cannot come.
    async fn hear_the_last_word(&mut self) {
        let heard = async {
            loop {
                while !self.is_connected() {
                    self.come_back().await;
                }
                if self.ears.heard_the_last_word || self.came_after_the_last_word() {
                    return;
                }
                if let Err(lost) = self.hear().await {
                    self.lost(lost);
                }
            }
        };
        if timeout(WAIT_FOR_THE_LAST_WORD, heard).await.is_err() {
            self.doubtful("it has not heard the last word");
        }
    }

    /// Hears the last word and goes, in one way or another.
    pub(crate) async fn part(mut self) {
        self.hear_the_last_word().await;
        self.provokes = true;
        let room = self.ears.room.take();
        if let Some((room, life)) = room.zip(self.ears.life.take()) {
            room.is_over(&self.ears.endpoint, life, How::ToTheEnd);
        }
        match self.random.below(4) {
            0 => {
                if let Err(lost) = self.call("channel.leave", "{}", &[0, 429]).await {
                    self.doubtful(&format!("it cannot leave: {lost:?}"));
                }
            }
            1 => {
                if let Some(connection) = self.neglect() {
                    connection.close(1000);
                }
                self.hear_the_end().await;
            }
            2 => drop(self.take_connection()),
            _ => {
                if let Some(connection) = self.take_connection() {
                    connection.reset();
                }
            }
        }
    }
}

/// A member's life from its first join to the end of the round.
pub(crate) async fn live(mut member: Member) {
    member.live().await;
    let world = Rc::clone(&member.world);
    world.ready.set(world.ready.get() + 1);
    member.part().await;
}
