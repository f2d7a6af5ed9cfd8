//! Names what takes long, from a thread of its own: so also when everything else stands still.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(60);
/// What is long.
const LONG: Duration = Duration::from_secs(120);

/// What runs, by the number of its start.
static RUNNING: Mutex<BTreeMap<u64, (String, Instant)>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<u64, (String, Instant)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that runs, until it goes out of scope.
pub struct Watched(u64);

/// Watches something.
pub fn watch(what: String) -> Watched {
    static THREAD: Once = Once::new();
    THREAD.call_once(|| {
        std::thread::spawn(look);
    });
    let mut running = running();
    let number = running.last_key_value().map_or(0, |(last, _)| last + 1);
    running.insert(number, (what, Instant::now()));
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

fn look() {
    loop {
        std::thread::sleep(EVERY);
        for (what, since) in running().values().filter(|(_, since)| since.elapsed() >= LONG) {
            println!("for {} s already: {what}", since.elapsed().as_secs());
        }
    }
}
