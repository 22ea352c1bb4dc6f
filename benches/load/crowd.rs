//! Members by the thousand: they connect, join, and are there.

use std::{
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::wire::{
    connection::{Connection, Received, Route},
    message::{Join, Joined, Message},
    server::Server,
    times::Times,
};

/// Connects at a time.
const AT_A_TIME: usize = 100;

/// One who has joined.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) connection: Connection,
    pub(crate) session: String,
    pub(crate) room: usize,
}

/// How a crowd came.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) members: Vec<Member>,
    pub(crate) took: Duration,
    /// From the connect to the answer, each.
    pub(crate) times: Rc<Times>,
}

/// So many come, one after another to each of the rooms.
pub(crate) async fn arrive(
    server: &Server,
    members: usize,
    rooms: usize,
) -> Result<Arrival, Box<dyn Error>> {
    let times = Rc::new(Times::default());
    let gate = Rc::new(Semaphore::new(AT_A_TIME));
    let begun = Instant::now();
    let mut coming = JoinSet::new();
    for n in 0..members {
        let (times, gate) = (times.clone(), gate.clone());
        let route = Route::new(server.addr, n as u32);
        coming.spawn_local(async move {
            let _turn = gate.acquire().await;
            let begun = Instant::now();
            let member = join(route, n % rooms, n).await.map_err(|e| e.to_string())?;
            times.add(begun.elapsed());
            Ok::<_, String>(member)
        });
    }
    let mut all = Vec::with_capacity(members);
    while let Some(joined) = coming.join_next().await {
        all.push(joined??);
    }
    Ok(Arrival {
        members: all,
        took: begun.elapsed(),
        times,
    })
}

async fn join(route: Route, room: usize, n: usize) -> Result<Member, Box<dyn Error>> {
    let mut connection = Connection::open(route).await?;
    let join = Join {
        channel: &format!("room {room}"),
        endpoint: &format!("member {n}"),
        session: "",
        last_event: Some(0),
    };
    connection.send(&join.request(1));
    loop {
        match connection.receive().await {
            Received::Text(text) => {
                let message: Message<'_> = serde_json::from_str(text)?;
                if message.err != Some(0) {
                    return Err(format!("a join is answered {text}").into());
                }
                let joined: Joined = serde_json::from_str(message.data.get())?;
                return Ok(Member {
                    connection,
                    session: joined.session,
                    room,
                });
            }
            Received::Ping => {}
            other => return Err(format!("a join is answered {other:?}").into()),
        }
    }
}

/// Reads whatever comes for so long, as a client does that has nothing to say.
pub(crate) fn attend(members: Vec<Member>) -> JoinSet<Member> {
    let mut reading = JoinSet::new();
    for mut member in members {
        reading.spawn_local(async move {
            loop {
                match member.connection.receive().await {
                    Received::Text(_) | Received::Ping => {}
                    _ => return member,
                }
            }
        });
    }
    reading
}
