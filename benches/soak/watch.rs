//! What is said while the soak goes on.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    say,
    wire::usage::{Usage, load_average},
    world::World,
};

/// How often.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often this process looks whether it is late itself.
const BEAT: Duration = Duration::from_millis(10);

/// See the module's text.
pub(crate) struct Watch {
    world: Rc<World>,
    server: Usage,
    begun: Instant,
    delivered: u64,
    cpu: Duration,
}

impl Watch {
    pub(crate) fn new(world: Rc<World>, server: Usage) -> Self {
        Self {
            delivered: world.figures.delivered.get(),
            cpu: server.cpu().unwrap_or_default(),
            begun: Instant::now(),
            world,
            server,
        }
    }

    /// Reports until it is stopped.
    pub(crate) async fn report(mut self) {
        loop {
            sleep(INTERVAL).await;
            self.world.decay();
            self.say();
        }
    }

    fn say(&mut self) {
        let since = std::mem::replace(&mut self.begun, Instant::now());
        let seconds = since.elapsed().as_secs_f64();
        let figures = &self.world.figures;
        let delivered = figures.delivered.get();
        let cpu = self.server.cpu().unwrap_or_default();
        let memory = self.server.memory().unwrap_or(0);
        say(&format!(
            "{:>6.0} s  {:>7} joins  {:>6} of {:>6} resumes  {:>10} events ({:>6.0}/s)  {} lost  \
             {} out of order  {} other faults  server {:>3.0} % CPU {:>4} MiB {:>5} files  load {:.1}",
            self.world.nanos() as f64 / 1e9,
            figures.joins.get(),
            figures.resumed.get(),
            figures.resumes_asked.get(),
            delivered,
            (delivered - self.delivered) as f64 / seconds,
            figures.losses.get(),
            figures.disorder.get(),
            figures.wrong_events.get() + figures.misbehaved.get(),
            cpu.saturating_sub(self.cpu).as_secs_f64() / seconds * 100.0,
            memory >> 20,
            self.server.open_files().unwrap_or(0),
            load_average(),
        ));
        self.delivered = delivered;
        self.cpu = cpu;
    }
}

/// Watches how late this process is itself: what members see as the server's delay may be ours.
pub(crate) async fn stalls(world: Rc<World>) {
    loop {
        let begun = Instant::now();
        sleep(BEAT).await;
        world
            .figures
            .stalls
            .add(begun.elapsed().saturating_sub(BEAT));
    }
}
