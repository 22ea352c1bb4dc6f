//! Those who come and never join: they must be sent away, and leave nothing behind.

use std::{io::ErrorKind, rc::Rc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};

use super::{
    wire::{
        connection::{Connection, Received},
        random::Random,
    },
    world::{JOIN_TIMEOUT, World},
};

/// How much later than its time one may be sent away, since machines are busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Comes again and again, never to join, until the round is over.
pub(crate) async fn stray(world: Rc<World>, mut random: Random) {
    while !world.is_over() {
        match random.below(5) {
            0 => silent(&world, b"").await,
            1 => silent(&world, b"GET /ws HTTP/1.1\r\nHost: soak\r\nUpgr").await,
            2 => loiter(&world).await,
            3 => {
                refused(
                    &world,
                    "GET /ws HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n",
                )
                .await
            }
            _ => leave_at_once(&world, &mut random).await,
        }
        let pause = Duration::from_secs_f64(random.between(0.0, 2.0));
        sleep_until(world.after(pause).into()).await;
    }
}

/// Says this and nothing more, and must be cut.
async fn silent(world: &World, said: &[u8]) {
    let Some(stream) = connect(world).await else {
        return;
    };
    // What it cannot say is no less silent.
    let _ = stream.try_write(said);
    match timeout(JOIN_TIMEOUT + PATIENCE, read_to_the_end(&stream)).await {
        Ok(_) => world.figures.strays.add("cut without an upgrade"),
        Err(_) => doubtful(world, "one who does not upgrade is not cut"),
    }
}

/// Upgrades, and then nothing.
async fn loiter(world: &World) {
    let route = world.route();
    let Ok(mut connection) = Connection::open(route).await else {
        return doubtful(world, "no upgrade for one who does not mean to join");
    };
    let closed = async {
        loop {
            match connection.receive().await {
                Received::Close(code) => return code,
                Received::End => return 1006,
                _ => {}
            }
        }
    };
    match timeout(JOIN_TIMEOUT + PATIENCE, closed).await {
        Ok(1008) => world.figures.strays.add("closed without a join"),
        Ok(code) => doubtful(world, &format!("who does not join is closed with {code}")),
        Err(_) => doubtful(world, "one who does not join is not closed"),
    }
}

/// Asks for something that is not to be had.
async fn refused(world: &World, request: &str) {
    let Some(stream) = connect(world).await else {
        return;
    };
    let _ = stream.try_write(request.as_bytes());
    match timeout(PATIENCE, read_to_the_end(&stream)).await {
        Ok(answer) if answer.starts_with("HTTP/1.1 4") => world.figures.strays.add("refused"),
        other => doubtful(world, &format!("no upgrade was asked for: {other:?}")),
    }
}

/// Is gone before anything has happened.
async fn leave_at_once(world: &World, random: &mut Random) {
    let upgraded = match random.below(2) {
        0 => connect(world).await.map(Connection::over),
        _ => Connection::open(world.route()).await.ok(),
    };
    if let Some(connection) = upgraded {
        match random.below(2) {
            0 => connection.reset(),
            _ => drop(connection),
        }
    }
    world.figures.strays.add("gone at once");
}

async fn connect(world: &World) -> Option<TcpStream> {
    let connected = world.route().connect().await;
    if let Err(error) = &connected {
        doubtful(world, &format!("no connection: {error}"));
    }
    connected.ok()
}

/// All that comes.
async fn read_to_the_end(stream: &TcpStream) -> String {
    let mut all = Vec::new();
    loop {
        if stream.readable().await.is_err() {
            break;
        }
        all.reserve(1024);
        match stream.try_read_buf(&mut all) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn doubtful(world: &World, what: &str) {
    world.figures.doubtful("a stray", what);
}
