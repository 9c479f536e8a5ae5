//! The agreement of all ranks before they train: each is ready, with the same model and data.

use std::sync::atomic::Ordering;

use super::Group;
use crate::error::{Error, ErrorKind, Result};

/// What a rank says when its preparations have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It can train. All ranks must have the same facts: names and values.
    Yes(Vec<(String, String)>),
    /// It failed, with this message.
    Failed(String),
    /// It has nothing to train.
    Done,
}

impl Ready {
    /// It can train.
    pub fn of(facts: &[(&str, String)]) -> Self {
        let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self::Yes(facts.collect())
    }

    fn text(&self) -> String {
        match self {
            Self::Yes(facts) => facts
                .iter()
                .fold("yes".to_owned(), |text, (name, value)| text + "\n" + name + "\t" + value),
            Self::Failed(message) => format!("failed\n{message}"),
            Self::Done => "done".to_owned(),
        }
    }

    fn parse(text: &str) -> Self {
        match text.split_once('\n') {
            Some(("failed", message)) => Self::Failed(message.to_owned()),
            None if text == "done" => Self::Done,
            _ => {
                let facts = text.lines().skip(1).filter_map(|line| line.split_once('\t'));
                Self::Yes(facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            }
        }
    }
}

impl Group {
    /// Whether all ranks have agreed to train.
    pub fn has_agreed(&self) -> bool {
        self.agreed.load(Ordering::SeqCst)
    }

    /// Tells the others whether this rank is ready, and waits for all of them. Returns whether the
    /// others are ready to follow rank 0.
    ///
    /// # Errors
    /// If a rank is not ready, or differs from rank 0; the message names that rank.
    pub fn agree(&self, own: &Ready) -> Result<bool> {
        let all = self.gather(own.text().as_bytes())?;
        self.agreed.store(true, Ordering::SeqCst);
        let all: Vec<Ready> =
            all.iter().map(|text| Ready::parse(&String::from_utf8_lossy(text))).collect();
        let failed = all.iter().enumerate().find_map(|(rank, ready)| match ready {
            Ready::Failed(message) => Some((rank, message)),
            Ready::Yes(_) | Ready::Done => None,
        });
        if let Some((rank, message)) = failed {
            let all_failed = all.iter().all(|ready| matches!(ready, Ready::Failed(_)));
            let error = if all_failed {
                Error::failed(message.clone())
            } else {
                Error::failed(format!("{}: {message}", self.name_of(rank)))
            };
            return Err(error.of(ErrorKind::Rank));
        }
        // Rank 0 sees first that a run is finished; the others are ready to train then.
        let first = if all[0] == Ready::Done { &all[1] } else { &all[0] };
        let other = all
            .iter()
            .enumerate()
            .skip(1)
            .find_map(|(rank, ready)| difference(first, ready).map(|name| (rank, name)));
        match other {
            Some((rank, name)) => Err(Error::failed(format!(
                "{} has another {name} than rank 0; start all ranks with the same program, \
                 arguments and files",
                self.name_of(rank)
            ))
            .of(ErrorKind::Rank)),
            None => Ok(matches!(all[1], Ready::Yes(_))),
        }
    }
}

/// The name of the first fact in which two ranks differ.
fn difference(first: &Ready, other: &Ready) -> Option<String> {
    match (first, other) {
        (Ready::Yes(first), Ready::Yes(other)) => {
            let mut pairs = first.iter().zip(other);
            let differs = pairs.find(|(one, another)| one != another);
            differs.map(|(one, _)| one.0.clone())
        }
        _ if first == other => None,
        _ => Some("task".to_owned()),
    }
}
