//! Writes the timeline of a step in the Trace Event Format (a JSON array), for Perfetto
//! (ui.perfetto.dev) and Chrome (chrome://tracing).
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use serde_json::{Value, json};

use crate::profile::Profile;

/// Collects the steps of several models, each as a separate process.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    events: Vec<Value>,
    processes: usize,
}

impl Trace {
    /// Adds a step as complete events, with times in microseconds.
    pub fn add(&mut self, name: &str, device: &str, profile: &Profile) {
        self.processes += 1;
        let pid = self.processes;
        let named = |what: &str, name: &str| {
            let args = json!({"name": name});
            json!({"ph": "M", "name": what, "pid": pid, "tid": 1, "args": args})
        };
        self.events.push(named("process_name", name));
        self.events.push(named("thread_name", device));
        for (timed, cost) in profile.timed.iter().zip(profile.costs()) {
            let operation = &profile.operations[timed.call];
            self.events.push(json!({
                "ph": "X",
                "name": timed.kernel,
                "cat": "kernel",
                "pid": pid,
                "tid": 1,
                "ts": timed.start / 1e3,
                "dur": timed.duration() / 1e3,
                "args": {
                    "operation": operation.label,
                    "shape": operation.sizes,
                    "flops": cost.flops,
                    "bytes": cost.bytes,
                },
            }));
        }
    }

    /// Text of the file, with one event on each line.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self.events.iter().map(Value::to_string).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Cost;
    use crate::profile::{Clock, Operation, Timed};

    #[test]
    fn a_trace_is_json_with_times_in_microseconds() {
        let cost = Cost { flops: 10.0, bytes: 20.0 };
        let operation = Operation { label: "loss".to_owned(), sizes: "3 n2".to_owned(), cost };
        let timed = vec![Timed { kernel: "loss".to_owned(), call: 0, start: 1500.0, end: 4000.0 }];
        let profile = Profile { clock: Clock::Calls, operations: [operation].into(), timed };
        let mut trace = Trace::default();
        trace.add("w1", "cpu", &profile);
        trace.add("w2", "cpu", &profile);
        let events: Vec<Value> = serde_json::from_str(&trace.text()).unwrap();
        assert_eq!(events.len(), 6);
        assert_eq!(
            (&events[2]["ph"], &events[2]["ts"], &events[2]["dur"]),
            (&"X".into(), &1.5.into(), &2.5.into())
        );
        assert_eq!(
            (&events[2]["args"]["shape"], &events[2]["args"]["flops"]),
            (&"3 n2".into(), &10.0.into())
        );
        assert_ne!(events[2]["pid"], events[5]["pid"]);
    }
}
