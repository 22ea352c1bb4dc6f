//! Everybody comes at once, as after a network failure or at nine o'clock.

use std::error::Error;

use super::{crowd, machine::Machine, say};

/// Members of a room: each join is told to those who are there already.
const ROOM: usize = 10;

pub(crate) async fn measure(machine: &Machine, members: usize) -> Result<(), Box<dyn Error>> {
    let server = machine.start_server(None, &[("SERVER__WORKERS", "1".to_owned())])?;
    let before = server.usage().cpu()?;
    let arrival = crowd::arrive(&server, members, (members / ROOM).max(1)).await?;
    let cpu = server.usage().cpu()? - before;
    let millis = |quantile| arrival.times.quantile(quantile).as_secs_f64() * 1e3;
    say(&format!(
        "{:<28} {members} members: {:.0} joins/s; {:.1} us CPU each; connect to answer p50 {:.2} ms, p99 {:.2}",
        "storm",
        members as f64 / arrival.took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / members as f64,
        millis(0.5),
        millis(0.99),
    ));
    Ok(())
}
