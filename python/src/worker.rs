//! A thread for each model, so that Python's threads can wait for it without the interpreter's lock
//! and can be interrupted.
//!
//! A model belongs to the thread that opened it. Jobs of several Python threads run one after
//! another. A thread that waits looks for signals ten times a second. After Ctrl-C it returns at
//! once, and the job ends at the next step, batch or strip.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use csae::{Model, Progress, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::convert;

/// Time between two looks for signals.
const LOOK: Duration = Duration::from_millis(100);
/// As the main thread's on Linux. Drivers compile shaders on it.
const STACK: usize = 8 << 20;

type Job = Box<dyn FnOnce(&mut Model) + Send>;

/// What a job sends to the thread that waits for it.
enum Message<R> {
    /// Progress of a training. The answer is whether to go on.
    Progress(Progress, Sender<bool>),
    Done(Result<R>),
}

/// A job's connection to the thread that waits for it.
pub struct Waiting<R> {
    messages: Sender<Message<R>>,
}

impl<R> Waiting<R> {
    /// Passes progress to the thread that waits, and returns whether to go on.
    pub fn report(&self, progress: &Progress) -> ControlFlow<()> {
        let (answer, answers) = mpsc::channel();
        let sent = self.messages.send(Message::Progress(*progress, answer));
        // A thread that has left wants nothing more.
        if sent.is_ok() && answers.recv() == Ok(true) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// The thread of a model.
pub struct Worker {
    jobs: Mutex<Sender<Job>>,
    process: u32,
}

impl Worker {
    /// Starts a thread that opens a model and waits for jobs.
    pub fn start(
        py: Python<'_>,
        open: impl FnOnce() -> Result<Model> + Send + 'static,
    ) -> PyResult<Self> {
        /// The process that used csae first.
        static FIRST: OnceLock<u32> = OnceLock::new();
        let process = std::process::id();
        check_process(*FIRST.get_or_init(|| process))?;
        let (jobs, received) = mpsc::channel::<Job>();
        let (opened, waiting) = mpsc::channel();
        let run = move || {
            let mut model = match open() {
                Ok(model) => model,
                Err(error) => {
                    let _ = opened.send(Message::Done(Err(error)));
                    return;
                }
            };
            let _ = opened.send(Message::Done(Ok(())));
            drop(opened);
            for job in received {
                job(&mut model);
            }
        };
        let thread = std::thread::Builder::new().name("csae".to_owned()).stack_size(STACK);
        thread.spawn(run).map_err(|error| {
            PyRuntimeError::new_err(format!(
                "cannot start a thread ({error}); raise the limit of threads"
            ))
        })?;
        wait(py, waiting, &AtomicBool::new(false), |_| Ok(true))?;
        Ok(Self { jobs: Mutex::new(jobs), process })
    }

    /// Runs a job on the model and waits for its result. `progress` is called on this thread, with
    /// the interpreter's lock; it returns whether to go on.
    pub fn run<R: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Model, &Waiting<R>) -> Result<R> + Send + 'static,
        progress: impl FnMut(Progress) -> PyResult<bool>,
    ) -> PyResult<R> {
        check_process(self.process)?;
        let (messages, received) = mpsc::channel();
        // Each job has its own flag: the next one must not stop, too.
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let job = move |model: &mut Model| {
            if flag.load(Ordering::Relaxed) {
                return;
            }
            model.set_stop(flag);
            let waiting = Waiting { messages };
            let result = work(model, &waiting);
            let _ = waiting.messages.send(Message::Done(result));
        };
        let sent = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(Box::new(job));
        sent.map_err(|_| ended())?;
        wait(py, received, &stop, progress)
    }

    /// [`Worker::run`] for work without progress.
    pub fn call<R: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Model) -> Result<R> + Send + 'static,
    ) -> PyResult<R> {
        self.run(py, |model, _| work(model), |_| Ok(true))
    }
}

/// Waits for the result of a job, and sets `stop` if the wait ends early.
fn wait<R: Send>(
    py: Python<'_>,
    received: Receiver<Message<R>>,
    stop: &AtomicBool,
    mut progress: impl FnMut(Progress) -> PyResult<bool>,
) -> PyResult<R> {
    // A receiver cannot be shared between threads without it.
    let received = Mutex::new(received);
    let next = || received.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK);
    let mut wait = || loop {
        match py.detach(next) {
            Ok(Message::Done(result)) => return result.map_err(|error| convert(&error)),
            Ok(Message::Progress(now, answer)) => {
                let _ = answer.send(progress(now)?);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
        py.check_signals()?;
    };
    let result = wait();
    stop.store(true, Ordering::Relaxed);
    result
}

fn ended() -> PyErr {
    PyRuntimeError::new_err(
        "the thread of the model has ended, which is a fault of csae; see its message on standard \
         error, and load the model again",
    )
}

/// Fails in a process that was forked from one that used csae: it has no threads.
fn check_process(first: u32) -> PyResult<()> {
    if std::process::id() == first {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "csae cannot compute in a process that was forked after it was used; start processes with \
         multiprocessing.get_context(\"spawn\"), and load models there",
    ))
}
