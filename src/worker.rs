//! What one worker thread is: a server of its own, with its share of the connections, one
//! registry, and the rooms that hash to it.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use actix::prelude::*;

use crate::{
    clients,
    crew::{Crew, Registry},
    registry::RegistryActor,
    room::GoDown,
};

thread_local! {
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// The worker of this thread.
pub struct Worker {
    /// Its number in the crew.
    pub index: usize,
    /// The registry of its rooms.
    pub registry: Addr<RegistryActor>,
    /// All workers.
    pub crew: Arc<Crew>,
}

impl Worker {
    /// The worker of this thread, made on the first call. The thread must be an arbiter's.
    pub fn on_this_thread(crew: &Arc<Crew>) -> Rc<Self> {
        WORKER.with(|cell| {
            cell.get_or_init(|| {
                clients::start(&crew.settings(), crew.count_for_thread());
                let registry = RegistryActor::new(crew.clone()).start();
                crew.enlist_registry(Registry {
                    life: registry.clone().recipient(),
                    media: registry.clone().recipient(),
                });
                Rc::new(Self {
                    index: crew.enlist(Arbiter::current()),
                    registry,
                    crew: crew.clone(),
                })
            })
            .clone()
        })
    }

    /// The server goes down: from now on nobody of this thread is told who leaves. How many rooms
    /// there are to say goodbye to. To be called on a worker's thread.
    pub fn begin_drain() -> usize {
        WORKER.with(|cell| {
            let Some(worker) = cell.get() else { return 0 };
            let rooms = clients::begin_drain();
            worker.registry.do_send(GoDown);
            rooms
        })
    }

    /// Runs something on another worker's thread. A worker that is gone drops it.
    pub fn send_to(&self, worker: usize, task: impl FnOnce(Rc<Self>) + Send + 'static) {
        let sent = self.crew.arbiter(worker).is_some_and(|arbiter| {
            arbiter.spawn_fn(move || {
                if let Some(worker) = WORKER.with(|cell| cell.get().cloned()) {
                    task(worker);
                }
            })
        });
        if !sent && !self.crew.is_draining() {
            log::error!("worker {worker} is gone");
        }
    }
}
