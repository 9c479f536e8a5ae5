//! Operations that compute with all samples of a batch, in a batch that is processed in parts:
//! selections among all samples, the KL penalty, and the Dice loss.
//!
//! Such an operation gets a buffer for the whole batch. A step runs the calls before it for every
//! part, collects its inputs, runs it once, and gives each part its share of the result.

use crate::ops::{AddAssign, BatchTopKMask, Dice, KlPenalty, LifetimeWtaMask};
use crate::program::Call;
use crate::record::Tape;
use crate::view::View;

/// A value of one part of a batch, and of the whole batch.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// The value of a part.
    pub part: View,
    /// The values of all parts, one after another.
    pub whole: View,
    /// Whether they are unsigned integers.
    pub are_words: bool,
}

/// An operation on the whole batch.
#[derive(Clone, Debug)]
pub struct WholeCall {
    /// Its place among the calls.
    pub at: usize,
    /// What it reads.
    pub inputs: Vec<Shared>,
    /// What it writes.
    pub output: Shared,
    /// Whether the output is added to a gradient. Then it is 0 before the call. The gradients of
    /// parts are averaged, so each part adds its share times the number of parts.
    pub is_gradient: bool,
}

impl WholeCall {
    /// All views.
    pub fn views(&mut self) -> impl Iterator<Item = &mut View> {
        let shared = self.inputs.iter_mut().chain([&mut self.output]);
        shared.flat_map(|shared| [&mut shared.part, &mut shared.whole])
    }
}

/// Rewrites the calls of a part for a batch of `parts`: operations on all samples get buffers for
/// the whole batch. Calls are inserted before index `end` only. Returns the operations and the new
/// index of that end.
pub fn spread(tape: &mut Tape, parts: usize, end: usize) -> (Vec<WholeCall>, usize) {
    let calls = std::mem::take(&mut tape.calls);
    let (mut wholes, mut new_end) = (Vec::new(), end);
    for (at, call) in calls.into_iter().enumerate() {
        let added = tape.calls.len();
        match call {
            Call::BatchTopKMask(of) => {
                let (x, mask) = (map(tape, of.x, parts), map(tape, of.mask, parts));
                let n = of.n * parts;
                let whole = BatchTopKMask { n, x: x.whole, mask: mask.whole, ..of };
                wholes.push(WholeCall {
                    at: added,
                    inputs: vec![x],
                    output: mask,
                    is_gradient: false,
                });
                tape.push(whole);
            }
            Call::LifetimeWtaMask(of) => {
                let (x, mask) = (map(tape, of.x, parts), map(tape, of.mask, parts));
                let sums = tape.real("sums of maps of the batch", of.sums.len * parts);
                let n = of.n * parts;
                let whole = LifetimeWtaMask { n, x: x.whole, mask: mask.whole, sums, ..of };
                wholes.push(WholeCall {
                    at: added,
                    inputs: vec![x],
                    output: mask,
                    is_gradient: false,
                });
                tape.push(whole);
            }
            Call::KlPenalty(of) => {
                let z = map(tape, of.z, parts);
                let output = gradient(tape, of.dz, parts);
                tape.push(KlPenalty { n: of.n * parts, z: z.whole, dz: output.whole, ..of });
                tape.push(AddAssign { x: output.part, y: of.dz });
                wholes.push(WholeCall { at: added, inputs: vec![z], output, is_gradient: true });
            }
            Call::Dice(of) => {
                let (q, weights) = (map(tape, of.q, parts), real(tape, of.weights, parts));
                let labels = words(tape, of.labels, parts);
                let output = gradient(tape, of.dy, parts);
                let pixels = of.pixels * parts;
                let partials = tape.partials(Dice::partials(pixels, of.classes));
                tape.push(Dice {
                    pixels,
                    q: q.whole,
                    labels: labels.whole,
                    weights: weights.whole,
                    dy: output.whole,
                    partials,
                    ..of
                });
                tape.push(AddAssign { x: output.part, y: of.dy });
                let inputs = vec![q, labels, weights];
                wholes.push(WholeCall { at: added, inputs, output, is_gradient: true });
            }
            other => tape.push(other),
        }
        if at < end {
            new_end += tape.calls.len() - added - 1;
        }
    }
    for whole in &mut wholes {
        whole.views().for_each(|view| tape.keep(*view));
    }
    (wholes, new_end)
}

fn map(tape: &mut Tape, part: View, parts: usize) -> Shared {
    let whole = tape.map("values of the batch", part.len * parts);
    Shared { part, whole, are_words: false }
}

fn real(tape: &mut Tape, part: View, parts: usize) -> Shared {
    let whole = tape.real("values of the batch", part.len * parts);
    Shared { part, whole, are_words: false }
}

fn words(tape: &mut Tape, part: View, parts: usize) -> Shared {
    let whole = tape.words("values of the batch", part.len * parts);
    Shared { part, whole, are_words: true }
}

fn gradient(tape: &mut Tape, of: View, parts: usize) -> Shared {
    let part = tape.map("gradient of a sum over the batch", of.len);
    map(tape, part, parts)
}
