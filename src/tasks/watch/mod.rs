//! A page that follows runs, served to the browsers of this machine.
//!
//! The server is read-only and bound to the loopback address. It answers GET only, and only for the
//! page, its data and the pictures that the page shows. A request must name the machine itself as
//! its host, so that a page elsewhere whose name resolves to this address (DNS rebinding) cannot
//! read anything.

mod http;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Answer, Content, Request};

use crate::error::{Error, Result};
use crate::report::page;
use crate::report::runs::{self, RunView, State, run_folders};

/// Maximum number of connections at a time. A browser opens six.
const CONNECTIONS: usize = 32;
/// Time that a browser has for a request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the server looks whether it is asked to end.
const TICK: Duration = Duration::from_millis(20);

/// A server of the page of runs.
#[derive(Debug)]
pub struct Watch {
    listener: TcpListener,
    title: String,
    followed: Mutex<Followed>,
    connections: AtomicUsize,
}

/// The runs, and the number of changes so far.
#[derive(Debug)]
struct Followed {
    /// Run folders, and folders of runs, in which runs can begin later.
    places: Vec<PathBuf>,
    runs: Vec<RunView>,
    version: u64,
}

impl Followed {
    /// Adds runs that began meanwhile, and reads what changed in all.
    fn update(&mut self) {
        let places = self.places.iter();
        let folders: Vec<PathBuf> = places
            .flat_map(|place| run_folders(place).unwrap_or_else(|_| vec![place.clone()]))
            .collect();
        let before = self.runs.len();
        // A place that waited for a run can turn out to be a folder of runs.
        self.runs.retain(|run| run.state != State::Waiting || folders.contains(&run.folder));
        let mut changed = self.runs.len() != before;
        for folder in folders {
            if self.runs.iter().all(|run| run.folder != folder) {
                self.runs.push(RunView::new(&folder, ""));
                changed = true;
            }
        }
        if changed {
            let folders: Vec<&Path> = self.runs.iter().map(|run| run.folder.as_path()).collect();
            let names = names(&folders);
            self.runs.iter_mut().zip(names).for_each(|(run, name)| run.name = name);
        }
        self.version += u64::from(changed);
        for run in &mut self.runs {
            // A log that cannot be read, for example while its disk is away, stays as it was.
            self.version += u64::from(run.update().unwrap_or(false));
        }
    }
}

impl Watch {
    /// Prepares to serve runs. A place is the folder of a run or of runs, and need not exist yet.
    /// Port 0 chooses a free port.
    ///
    /// # Errors
    /// If a place is neither, or the port is taken.
    pub fn new(places: &[PathBuf], port: u16) -> Result<Self> {
        for place in places {
            run_folders(place)?;
        }
        let folders: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(place)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| {
                Error::failed(format!(
                    "port {port}: {error}; choose another port, or 0 for any free port"
                ))
            })?;
        let names = names(&folders);
        let title = match &names[..] {
            [name] => format!("Training {name}"),
            _ => "Trainings".to_owned(),
        };
        let followed = Followed { places: places.to_vec(), runs: Vec::new(), version: 0 };
        let followed = Mutex::new(followed);
        Ok(Self { listener, title, followed, connections: AtomicUsize::new(0) })
    }

    /// The port.
    ///
    /// # Errors
    /// If the socket was closed.
    pub fn port(&self) -> Result<u16> {
        let address = self.listener.local_addr();
        address
            .map(|address| address.port())
            .map_err(|error| Error::failed(format!("the server has no address: {error}")))
    }

    /// Serves until `stop` returns true.
    pub fn serve(&self, stop: &dyn Fn() -> bool) {
        std::thread::scope(|scope| {
            while !stop() {
                let free = self.connections.load(Ordering::SeqCst) < CONNECTIONS;
                match self.listener.accept() {
                    Ok((stream, _)) if free => {
                        self.connections.fetch_add(1, Ordering::SeqCst);
                        scope.spawn(|| {
                            self.connection(stream);
                            self.connections.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                    // Closes the connection; the browser tries again.
                    Ok(_) => {}
                    // No connection is waiting, or it was closed meanwhile.
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        });
    }

    /// Answers one request. A browser that does not read its answer is its own loss.
    fn connection(&self, mut stream: TcpStream) {
        let ready = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        if ready.is_err() {
            return;
        }
        let answer = match http::read(&mut stream, PATIENCE) {
            Ok(Some(request)) => self.answer(&request),
            Ok(None) => return,
            Err(refusal) => refusal,
        };
        let _ = answer.send(&mut stream);
    }

    fn answer(&self, request: &Request) -> Answer {
        if !request.is_local() {
            return Answer::refuse(421, "this server answers only for localhost and 127.0.0.1");
        }
        if request.method != "GET" {
            return Answer::refuse(405, "only GET is allowed");
        }
        match request.path.as_str() {
            "/" => Answer::ok(Content::Html, runs::live_page(&self.title).into_bytes()),
            "/script.js" => Answer::ok(Content::Script, runs::SCRIPT.into()),
            "/style.css" => Answer::ok(Content::Style, page::STYLE.into()),
            // Browsers ask for it.
            "/favicon.ico" => Answer::unchanged(),
            "/data.json" => self.data(request.query("have")),
            path => self.picture(path).unwrap_or_else(|| Answer::refuse(404, "not found")),
        }
    }

    /// The data of the page, unless the browser has this version already.
    fn data(&self, have: Option<&str>) -> Answer {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.update();
        let Followed { runs, version, .. } = &*followed;
        // A number of this process: another server counts from 0, too.
        let known = format!("{}-{version}", std::process::id());
        if have == Some(known.as_str()) {
            return Answer::unchanged();
        }
        let mut data = runs::data(runs, &|run, picture| {
            Some(format!("picture/{run}/{}?{}", picture.file, picture.version()))
        });
        data["version"] = known.into();
        Answer::ok(Content::Json, data.to_string().into_bytes())
    }

    /// The picture `/picture/RUN/FILE`.
    fn picture(&self, path: &str) -> Option<Answer> {
        let (run, file) = path.strip_prefix("/picture/")?.split_once('/')?;
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = followed.runs.get(run.parse::<usize>().ok()?)?.picture(file)?;
        Some(Answer::ok(Content::Png, bytes))
    }
}

/// Names of runs in pages: the last part of their paths, or more parts if names would be equal.
pub fn names(folders: &[&Path]) -> Vec<String> {
    let parts: Vec<Vec<String>> = folders
        .iter()
        .map(|folder| {
            let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
            let names = whole.components().filter_map(|part| match part {
                std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            });
            names.collect()
        })
        .collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    let named = |count: usize| -> Vec<String> {
        parts.iter().map(|part| part[part.len().saturating_sub(count)..].join("/")).collect()
    };
    let distinct = |names: &Vec<String>| {
        names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len()
    };
    (1..=longest).map(named).find(distinct).unwrap_or_else(|| named(longest))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
