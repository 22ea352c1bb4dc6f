//! What a member costs that is there and nothing else.

use std::{error::Error, time::Duration};

use tokio::time::sleep;

use super::{crowd, machine::Machine, say};

/// Members of a room.
const ROOM: usize = 10;

/// How long it is quiet before the memory is looked at, and then the processor.
const QUIET: Duration = Duration::from_secs(5);

pub(crate) async fn measure(machine: &Machine, members: usize) -> Result<(), Box<dyn Error>> {
    let server = machine.start_server(None, &[("SERVER__WORKERS", "1".to_owned())])?;
    let usage = server.usage();
    let empty = usage.memory()?;
    let arrival = crowd::arrive(&server, members, (members / ROOM).max(1)).await?;
    let mut present = crowd::attend(arrival.members);
    sleep(QUIET).await;
    let memory = usage.memory()?;
    let before = usage.cpu()?;
    sleep(QUIET).await;
    let cpu = usage.cpu()? - before;
    let gone = present.try_join_next().is_some();
    say(&format!(
        "{:<28} {members} members: {:.0} bytes each beside {:.1} MiB; {:.1} % of a core for their pings",
        "idle",
        memory.saturating_sub(empty) as f64 / members as f64,
        empty as f64 / f64::from(1 << 20),
        cpu.as_secs_f64() / QUIET.as_secs_f64() * 100.0,
    ));
    present.shutdown().await;
    if gone {
        return Err("a quiet member has lost its connection".into());
    }
    Ok(())
}
