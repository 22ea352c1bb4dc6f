//! What a worker thread cannot do without.

/// Held by something without which its thread would go on deaf or mute, and its clients would not
/// notice: if that panics, the process ends, so that the service manager starts a clean one.
pub struct Vital(pub &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("{} of a worker failed; the process ends", self.0);
            log::logger().flush();
            std::process::exit(1);
        }
    }
}
