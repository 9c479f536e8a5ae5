//! Exchange over sockets between processes that csae starts itself, on one machine: one for each
//! device that a training uses.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::launcher::{Launched, OWN};
use super::{Transport, lost};
use crate::error::{Error, Result};

/// Messages of at most this size fit into the system's buffers, so all can be sent before any is
/// received.
const SMALL: usize = 16 << 10;

/// How long a process may take to start and connect.
const STARTING: Duration = Duration::from_secs(60);

/// The connections to the other ranks; `None` at the place of this one.
#[derive(Debug)]
pub struct Sockets {
    rank: usize,
    peers: Vec<Option<TcpStream>>,
    /// The processes that this one started.
    children: Mutex<Vec<Child>>,
}

/// Starts the other ranks with the same command line, and connects all of them. This process is
/// rank 0 of `size`.
///
/// # Errors
/// If a process cannot be started, or ends before it connects.
pub fn start(
    size: usize,
    arguments: impl IntoIterator<Item = OsString> + Clone,
) -> Result<Sockets> {
    let failed = |what: &str, error: &std::io::Error| {
        Error::failed(format!("cannot {what} for the other devices: {error}"))
    };
    let program = std::env::current_exe().map_err(|error| failed("find the program", &error))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| failed("open a socket", &error))?;
    let port = listener.local_addr().map_err(|error| failed("open a socket", &error))?.port();
    let password = password();
    let mut children = Vec::new();
    for rank in 1..size {
        let child = Command::new(&program)
            .args(arguments.clone())
            .env(OWN, format!("{rank} {size} {port} {password}"))
            .stdin(std::process::Stdio::null())
            .spawn()
            .map_err(|error| failed("start a process", &error))?;
        children.push(child);
    }
    let mut peers: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    let mut ports = vec![0_u64; size];
    let begun = Instant::now();
    while peers[1..].iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => {
                // Another program can connect, too. It does not know the password.
                if let Ok((rank, own_port)) = greeting(&stream, password)
                    && (1..size).contains(&rank)
                {
                    ports[rank] = own_port;
                    peers[rank] = Some(stream);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let ended =
                    children.iter_mut().position(|child| !matches!(child.try_wait(), Ok(None)));
                if let Some(ended) = ended {
                    return Err(lost(format!("rank {} of {size} ended as it started", ended + 1)));
                }
                if begun.elapsed() > STARTING {
                    return Err(lost("another process did not start within a minute"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(failed("accept a connection", &error)),
        }
    }
    let sockets = Sockets { rank: 0, peers, children: Mutex::new(children) };
    sockets.broadcast(bytemuck::cast_slice_mut(&mut ports))?;
    Ok(sockets)
}

/// Connects a process that [`start`] has started to the others.
///
/// # Errors
/// If another rank has ended.
pub fn join(launched: Launched) -> Result<Sockets> {
    let Launched { rank, size, .. } = launched;
    let failed = |error: std::io::Error| lost(format!("cannot connect: {error}"));
    let own = std::env::var(OWN).unwrap_or_default();
    let numbers: Vec<u64> = own.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[.., port, password] = &numbers[..] else {
        return Err(Error::usage(format!("{OWN}={own}: unset this variable; csae sets it")));
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let own_port = u64::from(listener.local_addr().map_err(failed)?.port());
    let connect = |port: u64| -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port as u16))?;
        stream.set_nodelay(true)?;
        stream.write_all(bytemuck::cast_slice(&[password, rank as u64, own_port]))?;
        Ok(stream)
    };
    let mut peers: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    peers[0] = Some(connect(port).map_err(failed)?);
    let mut sockets = Sockets { rank, peers, children: Mutex::default() };
    let mut ports = vec![0_u64; size];
    sockets.broadcast(bytemuck::cast_slice_mut(&mut ports))?;
    for (other, port) in ports.iter().enumerate().take(rank).skip(1) {
        sockets.peers[other] = Some(connect(*port).map_err(failed)?);
    }
    while sockets.peers[rank + 1..].iter().any(Option::is_none) {
        let (stream, _) = listener.accept().map_err(failed)?;
        if let Ok((other, _)) = greeting(&stream, password)
            && (rank + 1..size).contains(&other)
        {
            sockets.peers[other] = Some(stream);
        }
    }
    Ok(sockets)
}

/// Reads what a process says first: the password, its rank and its port.
fn greeting(mut stream: &TcpStream, password: u64) -> std::io::Result<(usize, u64)> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut words = [0_u64; 3];
    stream.read_exact(bytemuck::cast_slice_mut(&mut words))?;
    stream.set_read_timeout(None)?;
    if words[0] == password {
        Ok((words[1] as usize, words[2]))
    } else {
        Err(ErrorKind::PermissionDenied.into())
    }
}

/// A number that other programs do not know.
fn password() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The keys of a `RandomState` come from the system's random numbers.
    RandomState::new().build_hasher().finish()
}

impl Sockets {
    /// Sends `outgoing(rank)` to each rank, while it reads `each` bytes from each into its piece of
    /// `receive`.
    fn exchange<'a>(
        &self,
        outgoing: impl Fn(usize) -> &'a [u8],
        receive: &mut [u8],
        each: usize,
    ) -> Result<()> {
        let ended = |rank: usize, error: &std::io::Error| {
            let how = match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    "has ended".to_owned()
                }
                _ => format!("cannot be reached: {error}"),
            };
            lost(format!("rank {rank} of {} {how}", self.peers.len()))
        };
        if each == 0 {
            return Ok(());
        }
        let peers =
            || self.peers.iter().enumerate().filter_map(|(i, peer)| Some((i, peer.as_ref()?)));
        receive[self.rank * each..][..each].copy_from_slice(outgoing(self.rank));
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for (rank, peer) in peers() {
                let (bytes, mut peer) = (outgoing(rank), peer);
                if each <= SMALL {
                    peer.write_all(bytes).map_err(|error| ended(rank, &error))?;
                } else {
                    writers.push((rank, scope.spawn(move || peer.write_all(bytes))));
                }
            }
            let mut result = Ok(());
            for (rank, mut peer) in peers() {
                let read = peer.read_exact(&mut receive[rank * each..][..each]);
                if let Err(error) = read {
                    // Writers to ranks that do not read end with their connection.
                    peers().for_each(|(_, peer)| drop(peer.shutdown(std::net::Shutdown::Both)));
                    result = Err(ended(rank, &error));
                    break;
                }
            }
            for (rank, writer) in writers {
                let written = writer.join().unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()));
                result = result.and(written.map_err(|error| ended(rank, &error)));
            }
            result
        })
    }
}

impl Transport for Sockets {
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        let each = send.len() / self.peers.len();
        self.exchange(|rank| &send[rank * each..][..each], receive, each)
    }

    fn all_gather(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.exchange(|_| send, receive, send.len())
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let gone = |error: std::io::Error| lost(format!("another process has ended ({error})"));
        match self.rank {
            0 => {
                let mut peers = self.peers.iter().flatten();
                peers.try_for_each(|mut peer| peer.write_all(bytes)).map_err(gone)
            }
            _ => {
                let mut first = self.peers[0].as_ref().expect("it is another rank");
                first.read_exact(bytes).map_err(gone)
            }
        }
    }

    fn name(&self) -> String {
        "sockets of this machine".to_owned()
    }

    fn close(&self) {
        let mut children = self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for child in children.iter_mut() {
            let _ = child.wait();
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Without their rank 0 the others end by themselves; those that hang are stopped.
        self.peers.iter().flatten().for_each(|peer| drop(peer.shutdown(std::net::Shutdown::Both)));
        let children = self.children.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for child in children.iter_mut() {
            let begun = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The arguments of this process, for the processes that it starts.
pub fn own_arguments() -> Vec<OsString> {
    std::env::args_os()
        .skip(1)
        .map(|argument| AsRef::<OsStr>::as_ref(&argument).to_owned())
        .collect()
}
