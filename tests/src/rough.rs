//! Two places whose only way to each other delays and loses what passes: network namespaces of their own, and between them
//! a proxy in this process.
//!
//! Each place has a TUN device; `socat` carries its datagrams to and from a socket of the proxy's, which holds each back for a
//! random time, so that they also overtake each other, and drops some. All of it is gone when a [`Rough`] is dropped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::programs::{Process, start};

/// Where the near place is reached from the far one.
pub const NEAR: &str = "10.77.0.1";

/// Where the far place is reached from the near one.
pub const FAR: &str = "10.77.0.2";

/// A device comes within this time, or something is broken.
const DEVICE_TIME_MAX: Duration = Duration::from_secs(20);

/// A reader of a socket looks this often whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// More than the devices' 1500 bytes.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// What becomes of a datagram.
#[derive(Clone, Debug)]
pub struct Weather {
    /// How long it is under way, one way.
    pub delay: Range<Duration>,
    /// The share that is lost.
    pub loss: f64,
    /// Of all chance in it.
    pub seed: u64,
}

/// Two places and the rough way between them.
pub struct Rough {
    // Dropped in this order: first what uses the namespaces.
    _tunnels: [Process; 2],
    proxy: Proxy,
    near: Namespace,
    far: Namespace,
    _sockets: TempDir,
}

impl Rough {
    /// Both places, the way open; `None`, with a printed reason, where that cannot be made.
    pub fn open(weather: &Weather) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return skip("network namespaces are Linux's");
        }
        if !runs(Command::new("socat").arg("-V")) || !runs(Command::new("ip").arg("-V")) {
            return skip("the programs socat and ip are missing");
        }
        let [near, far] = ["near", "far"].map(Namespace::new);
        let (Some(near), Some(far)) = (near, far) else { return skip("only root can make network namespaces") };
        let sockets = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| sockets.path().join(name);
        let ends = [path("near"), path("far")];
        let proxy = Proxy::start([path("proxy-near"), path("proxy-far")], ends.clone(), weather);
        let near_tunnel = near.tunnel(NEAR, &ends[0], &path("proxy-near"))?;
        let far_tunnel = far.tunnel(FAR, &ends[1], &path("proxy-far"))?;
        Some(Self { _tunnels: [near_tunnel, far_tunnel], proxy, near, far, _sockets: sockets })
    }

    /// The same command, run at the near place.
    pub fn near(&self, command: &Command) -> Command {
        self.near.inside(command)
    }

    /// The same command, run at the far place.
    pub fn far(&self, command: &Command) -> Command {
        self.far.inside(command)
    }

    /// Datagrams that were carried so far, and those that were lost.
    pub fn carried_and_lost(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.proxy.counts.carried), count(&self.proxy.counts.lost))
    }
}

fn skip(reason: &str) -> Option<Rough> {
    println!("SKIPPED: {reason}");
    None
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A network namespace that ends with this value.
struct Namespace(String);

impl Namespace {
    fn new(place: &str) -> Option<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("manyhands-{place}-{}-{number}", std::process::id());
        if !runs(Command::new("ip").args(["netns", "add", &name])) {
            return None;
        }
        let namespace = Self(name);
        runs(Command::new("ip").args(["-n", &namespace.0, "link", "set", "lo", "up"])).then_some(namespace)
    }

    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.0]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// A device with this address, whose datagrams go to and come from a socket.
    fn tunnel(&self, address: &str, end: &Path, proxy: &Path) -> Option<Process> {
        let mut socat = Command::new("socat");
        socat.arg(format!("TUN:{address}/24,up,iff-no-pi,tun-name=rough"));
        socat.arg(format!("UNIX-SENDTO:{},bind={}", proxy.display(), end.display()));
        let tunnel = start(&mut self.inside(&socat));
        let began = Instant::now();
        let mut look = Command::new("ip");
        look.args(["-n", &self.0, "address", "show", "rough"]);
        while began.elapsed() < DEVICE_TIME_MAX {
            let shown = look.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            if end.exists() && shown.is_ok_and(|shown| shown.contains(address)) {
                return Some(tunnel);
            }
        }
        println!("SKIPPED: no TUN device can be made here");
        None
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        runs(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

#[derive(Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
}

/// Carries datagrams between two sockets until it is dropped.
struct Proxy {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

/// A datagram under way to the socket of that side; earlier ones are greater.
type Flight = Reverse<(Instant, u64, usize, Vec<u8>)>;

impl Proxy {
    /// A datagram that comes to one of `own` from its end goes on from the other to that one's.
    fn start(own: [PathBuf; 2], ends: [PathBuf; 2], weather: &Weather) -> Self {
        let sockets = own.map(|path| Arc::new(UnixDatagram::bind(path).expect("a socket can be made")));
        let (is_over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let (sender, flights) = mpsc::channel();
        let mut threads = Vec::new();
        for side in [0, 1] {
            let (socket, is_over, counts) = (sockets[side].clone(), is_over.clone(), counts.clone());
            let (weather, sender) = (weather.clone(), sender.clone());
            socket.set_read_timeout(Some(LOOK_EVERY)).expect("a timeout can be set");
            threads.push(std::thread::spawn(move || {
                let mut rng = StdRng::seed_from_u64(weather.seed + side as u64);
                let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
                let mut number = side as u64;
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(length) = socket.recv(&mut buffer) else { continue };
                    if rng.random_bool(weather.loss) {
                        counts.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    counts.carried.fetch_add(1, Ordering::Relaxed);
                    number += 2;
                    let due = Instant::now() + rng.random_range(weather.delay.clone());
                    let flight = Reverse((due, number, 1 - side, buffer[..length].to_vec()));
                    if sender.send(flight).is_err() {
                        break;
                    }
                }
            }));
        }
        threads.push(std::thread::spawn(move || land(&flights, &sockets, &ends)));
        Self { is_over, threads, counts }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends each datagram on when its time has come, until no more come.
fn land(flights: &mpsc::Receiver<Flight>, sockets: &[Arc<UnixDatagram>; 2], ends: &[PathBuf; 2]) {
    let mut under_way: BinaryHeap<Flight> = BinaryHeap::new();
    loop {
        let wait = match under_way.peek() {
            Some(Reverse((due, ..))) => due.saturating_duration_since(Instant::now()),
            None => LOOK_EVERY,
        };
        if wait.is_zero() {
            if let Some(Reverse((_, _, side, datagram))) = under_way.pop() {
                // A device that is gone or does not keep up loses it, as a network would.
                let _ = sockets[side].send_to(&datagram, &ends[side]);
            }
            continue;
        }
        match flights.recv_timeout(wait) {
            Ok(flight) => under_way.push(flight),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next datagrams, as many as come within a second.
    fn receive(socket: &UnixDatagram) -> usize {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
        let mut buffer = [0; 8];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
    }

    #[test]
    fn the_proxy_delays_and_loses_what_it_shall() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        let [near, far] = ["near", "far"].map(|name| UnixDatagram::bind(path(name)).expect("a socket can be made"));
        let weather = Weather { delay: Duration::from_millis(35)..Duration::from_millis(65), loss: 0.5, seed: 3 };
        let own = ["proxy-near", "proxy-far"].map(path);
        let proxy = Proxy::start(own.clone(), [path("near"), path("far")], &weather);
        let began = Instant::now();
        for number in 0..100_u8 {
            near.send_to(&[number], &own[0]).expect("the proxy listens");
        }
        far.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        far.recv(&mut [0; 8]).expect("half of them come");
        assert!(began.elapsed() >= weather.delay.start);
        let came = 1 + receive(&far);
        let (carried, lost) = (&proxy.counts.carried, &proxy.counts.lost);
        assert_eq!(came as u64, carried.load(Ordering::Relaxed));
        assert_eq!(100 - came as u64, lost.load(Ordering::Relaxed));
        assert!((30..70).contains(&came), "{came}");
    }
}
