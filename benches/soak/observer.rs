//! The observer of a room: the first to come, the last to leave; it reads all the time.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    ledger::Fault,
    member::{Lost, Member},
    room::{CLOSER, LAST_WORD, OBSERVER, Room},
    wire::random::Random,
    world::World,
};

/// How often it looks whether somebody's story can be judged.
const REST: Duration = Duration::from_millis(300);

/// How long after all have gone, or were lost, everybody must have left.
const PATIENCE: Duration = Duration::from_secs(40);

/// Joins the empty room; it is to [`watch`](Observer::watch) then.
pub(crate) struct Observer {
    room: Rc<Room>,
    member: Member,
}

impl Observer {
    pub(crate) async fn join(world: &Rc<World>, room: &Rc<Room>) -> Self {
        let random = Random::new(world.seed);
        let mut member = Member::new(world.clone(), OBSERVER.to_owned(), random, true);
        if let Err(lost) = member.observe(room).await {
            member.misbehaved(&format!("it cannot join: {lost:?}"));
        }
        Self {
            room: room.clone(),
            member,
        }
    }

    /// Sees all that happens until the room is empty.
    pub(crate) async fn watch(mut self) {
        let world = self.member.world.clone();
        let mut emptying_since = None;
        loop {
            let rested = self.rest().await;
            self.room.settle(&world.figures);
            if let Err(lost) = rested {
                self.member.lost(lost);
                self.go_on().await;
            }
            if !world.emptying.get() {
                continue;
            }
            let since: &mut Instant = emptying_since.get_or_insert_with(Instant::now);
            let ledger = self.room.ledger.borrow();
            let present = ledger.as_ref().map_or(0, |ledger| ledger.present());
            drop(ledger);
            if present == 0 && self.room.unsettled() == 0 {
                break;
            }
            if since.elapsed() > PATIENCE {
                let unsettled = self.room.unsettled();
                self.member.misbehaved(&format!(
                    "{present} have never left, of {unsettled} the end was never seen"
                ));
                world
                    .figures
                    .fault(&Fault::NoEnd, &self.room.channel, OBSERVER);
                break;
            }
        }
        if let Err(lost) = self.member.call("channel.leave", "{}", &[0]).await {
            self.member.lost(lost);
        }
    }

    /// Reads for a while.
    async fn rest(&mut self) -> Result<(), Lost> {
        let until = tokio::time::sleep(REST);
        tokio::pin!(until);
        loop {
            tokio::select! {
                heard = self.member.hear() => { heard?; }
                () = &mut until => return Ok(()),
            }
        }
    }

    /// It was lost, which it has given no reason for. Where it is not waited for any more, it has
    /// missed what happened since, and nobody in its room can be judged until the next round.
    async fn go_on(&mut self) {
        self.member.come_back().await;
        if self.member.ears.life.take().is_some() {
            self.room.abandon();
            self.member
                .doubtful("nobody sees any more what happens in this room");
        }
    }
}

/// Says the last word in a room.
pub(crate) async fn close(world: &Rc<World>, room: &Rc<Room>) {
    let mut closer = Member::new(world.clone(), CLOSER.to_owned(), Random::new(0), true);
    closer.wants(room);
    closer.come_back().await;
    let said = format!(r#"{{"text":"{LAST_WORD}"}}"#);
    if closer.call("broadcast", &said, &[0]).await.is_err()
        || closer.call("channel.leave", "{}", &[0]).await.is_err()
    {
        closer.misbehaved("the last word cannot be said");
    }
    closer.session_is_over(super::room::How::Left);
}
