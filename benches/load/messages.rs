//! Some speak, the others hear it: how many deliveries a second, at what cost, and how late.

use std::{
    cell::Cell,
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};

use memchr::memmem;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{
    SETTLING,
    crowd::{self, Member},
    flags::{Flags, Shape, Workload},
    machine::Machine,
    outcome::Outcome,
    wire::{connection::Received, message::request, times::Times, usage::Usage},
};

/// In front of the time at which a broadcast was due.
const DUE: &str = r#""due":"#;

/// How long what is on its way at the end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offer {
    /// So many deliveries a second, evenly, whether the server keeps up or not.
    Rate(u64),
    /// Each sender speaks as soon as fewer than so many of its broadcasts are unanswered.
    Window(usize),
}

/// What the members of all rooms have in common.
struct Stage {
    begun: Instant,
    shape: Shape,
    pad: String,
    sent: Cell<u64>,
    delivered: Cell<u64>,
    errors: Cell<u64>,
    latency: Times,
    measuring: Cell<bool>,
    over: Cell<bool>,
}

impl Stage {
    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

/// The defaults, but that nobody is limited, or soon put out, and there is one thread for one core.
fn settings() -> Vec<(&'static str, String)> {
    let set = |key, value: &str| (key, value.to_owned());
    vec![
        set("SERVER__WORKERS", "1"),
        set("SESSION__RATE_LIMIT", "0"),
        set("SESSION__SEND_QUEUE", "1000"),
    ]
}

/// Measures one workload on a server of its own.
pub(crate) async fn measure(
    machine: &Machine,
    flags: &Flags,
    workload: Workload,
    offer: Offer,
) -> Result<Outcome, Box<dyn Error>> {
    let shape = workload.shape(flags);
    let server = machine.start_server(None, &settings())?;
    let arrival = crowd::arrive(&server, shape.all(), shape.rooms).await?;
    let stage = Rc::new(Stage {
        begun: Instant::now(),
        shape,
        pad: "x".repeat(flags.size.saturating_sub(40)),
        sent: Cell::new(0),
        delivered: Cell::new(0),
        errors: Cell::new(0),
        latency: Times::default(),
        measuring: Cell::new(false),
        over: Cell::new(false),
    });
    let mut members = JoinSet::new();
    let mut speaking = vec![0; shape.rooms];
    for member in arrival.members {
        let nth = speaking[member.room];
        speaking[member.room] += 1;
        if nth < shape.senders {
            let index = nth * shape.rooms + member.room;
            members.spawn_local(speak(stage.clone(), member, offer, index));
        } else {
            members.spawn_local(listen(stage.clone(), member));
        }
    }
    sleep(SETTLING).await;
    let outcome = measured(&stage, server.usage(), flags, workload, offer).await?;
    members.shutdown().await;
    let (status, log) = server.stop()?;
    if log.errors > 0 || !status.success() {
        return Err(format!("the server ended with {status}: {:?}", log.kept).into());
    }
    Ok(outcome)
}

async fn measured(
    stage: &Stage,
    server: Usage,
    flags: &Flags,
    workload: Workload,
    offer: Offer,
) -> Result<Outcome, Box<dyn Error>> {
    let own = Usage::of(std::process::id());
    let before = (stage.delivered.get(), server.cpu()?, own.cpu()?);
    let begun = Instant::now();
    stage.measuring.set(true);
    sleep(Duration::from_secs(flags.secs)).await;
    stage.measuring.set(false);
    let seconds = begun.elapsed().as_secs_f64();
    let delivered = (stage.delivered.get() - before.0) as f64;
    let server_cpu = (server.cpu()? - before.1).as_secs_f64();
    let load_cpu = (own.cpu()? - before.2).as_secs_f64();
    stage.over.set(true);
    let owed =
        || (stage.sent.get() * stage.shape.receivers()) as i64 - stage.delivered.get() as i64;
    let until = Instant::now() + PATIENCE;
    while owed() != 0 && Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
    }
    let how = match offer {
        Offer::Rate(rate) => format!("at {rate}/s"),
        Offer::Window(window) => format!("window {window}"),
    };
    Ok(Outcome {
        name: format!("{} {how}", workload.name()),
        deliveries_a_second: delivered / seconds,
        cpu_micros: server_cpu * 1e6 / delivered,
        server_cpu: server_cpu / seconds,
        load_cpu: load_cpu / seconds,
        latency: stage.latency.clone(),
        lost: owed(),
        errors: stage.errors.get(),
    })
}

/// One who only hears.
async fn listen(stage: Rc<Stage>, mut member: Member) {
    while hear(&stage, &mut member, None).await {}
}

/// One who speaks too; `index` among all senders.
async fn speak(stage: Rc<Stage>, mut member: Member, offer: Offer, index: usize) {
    sleep(SETTLING / 2).await;
    match offer {
        Offer::Window(window) => {
            let permits = Rc::new(Semaphore::new(window));
            loop {
                tokio::select! {
                    biased;
                    permit = permits.acquire(), if !stage.over.get() => {
                        let Ok(permit) = permit else { return };
                        permit.forget();
                        say(&stage, &mut member, stage.micros());
                    }
                    goes_on = hear(&stage, &mut member, Some(&permits)) => {
                        if !goes_on { return }
                    }
                }
            }
        }
        Offer::Rate(rate) => {
            let shape = stage.shape;
            let senders = (shape.rooms * shape.senders) as f64;
            let every = senders * shape.receivers() as f64 / rate as f64;
            let begun = Instant::now();
            let first = every * index as f64 / senders;
            let nth_due = |n: f64| begun + Duration::from_secs_f64(first + every * n);
            let (mut said, mut due) = (0.0, nth_due(0.0));
            let timer = sleep_until(due.into());
            tokio::pin!(timer);
            loop {
                tokio::select! {
                    biased;
                    () = &mut timer, if !stage.over.get() => {
                        // From when it was due: if this process is late, those who wait do not
                        // care why.
                        let at = due.duration_since(stage.begun).as_micros() as u64;
                        say(&stage, &mut member, at);
                        said += 1.0;
                        due = nth_due(said);
                        timer.as_mut().reset(due.into());
                    }
                    goes_on = hear(&stage, &mut member, None) => {
                        if !goes_on { return }
                    }
                }
            }
        }
    }
}

fn say(stage: &Stage, member: &mut Member, due: u64) {
    let data = format!(r#"{{{DUE}{due},"pad":"{}"}}"#, stage.pad);
    let text = request(2, "broadcast", &member.session, &data);
    member.connection.send(&text);
    stage.sent.set(stage.sent.get() + 1);
}

/// Hears one thing. An answer gives a permit back. `false`: the connection has ended.
async fn hear(stage: &Stage, member: &mut Member, permits: Option<&Semaphore>) -> bool {
    let error = || stage.errors.set(stage.errors.get() + 1);
    match member.connection.receive().await {
        Received::Text(text) => {
            if let Some(at) = memmem::find(text.as_bytes(), DUE.as_bytes()) {
                stage.delivered.set(stage.delivered.get() + 1);
                if stage.measuring.get() {
                    let digits = text[at + DUE.len()..].bytes();
                    let due = digits
                        .take_while(u8::is_ascii_digit)
                        .fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
                    let latency = stage.micros().saturating_sub(due);
                    stage.latency.add(Duration::from_micros(latency));
                }
            } else if text.contains(r#""err":"#) {
                if !text.contains(r#""err":0,"#) {
                    error();
                }
                if let Some(permits) = permits {
                    permits.add_permits(1);
                }
            }
            true
        }
        Received::Ping => true,
        Received::Close(_) | Received::End | Received::Nonsense(_) => {
            error();
            false
        }
    }
}
