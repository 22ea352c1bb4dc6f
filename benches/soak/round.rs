//! One round: observers first, then everybody; and in the end, after a last word, nobody.

use std::{
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout_at},
};

use super::{
    acts,
    member::Member,
    observer::{self, Observer},
    room::Room,
    strays,
    watch::Watch,
    wire::{random::Random, server::Server},
    world::World,
};

/// One member in so many knows nothing of event numbers.
const UNNUMBERED: usize = 20;

/// One stray for so many members.
const STRAYS: usize = 50;

/// Joins a second at the beginning.
const ARRIVALS: f64 = 400.0;

/// How long after the end of the round everybody must be there to hear the last word, and then
/// how long all may take to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lives a round until then; `n` is its number.
pub(crate) async fn live(
    world: &Rc<World>,
    server: &mut Server,
    n: u32,
    until: Instant,
) -> Result<(), Box<dyn Error>> {
    world.begin_round(until);
    let watch = tokio::task::spawn_local(Watch::new(world.clone(), server.usage()).report());
    let stalls = tokio::task::spawn_local(super::watch::stalls(world.clone()));
    let mut observers = JoinSet::new();
    for room in &world.rooms {
        let observer = Observer::join(world, room).await;
        observers.spawn_local(observer.watch());
    }
    let mut random = Random::new(world.seed ^ u64::from(n) << 32);
    let mut all = JoinSet::new();
    for _ in 0..world.members / STRAYS {
        let random = Random::new(random.next());
        all.spawn_local(strays::stray(world.clone(), random));
    }
    for id in 0..world.members {
        let random = Random::new(random.next());
        let numbered = id % UNNUMBERED != UNNUMBERED - 1;
        let mut member = Member::new(world.clone(), format!("member {id}"), random, numbered);
        let room = world.any_room(&mut member.random);
        member.wants(&room);
        let arrives = Duration::from_secs_f64(id as f64 / ARRIVALS);
        all.spawn_local(async move {
            sleep(arrives).await;
            acts::live(member).await;
        });
    }
    let patience = tokio::time::Instant::from_std(until) + PATIENCE;
    while world.ready.get() < world.members {
        if !server.is_running()? {
            return Err(format!("the server has ended: {:?}", server.log().kept).into());
        }
        if tokio::time::Instant::now() > patience {
            return Err(format!("only {} are there at the end", world.ready.get()).into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    say_the_last_words(world).await;
    ended(&mut all, patience + PATIENCE, "member").await?;
    world.emptying.set(true);
    ended(&mut observers, patience + PATIENCE, "observer").await?;
    while world.has_graves() {
        world.decay();
    }
    watch.abort();
    stalls.abort();
    Ok(())
}

async fn say_the_last_words(world: &Rc<World>) {
    let rooms: Vec<Rc<Room>> = world.rooms.clone();
    for room in &rooms {
        observer::close(world, room).await;
    }
}

/// Waits until all these have ended.
async fn ended(
    tasks: &mut JoinSet<()>,
    until: tokio::time::Instant,
    who: &str,
) -> Result<(), Box<dyn Error>> {
    loop {
        match timeout_at(until, tasks.join_next()).await {
            Ok(Some(ended)) => ended?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(format!("a {who} does not come to its end").into()),
        }
    }
}
