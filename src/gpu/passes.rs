//! Divides dispatches into compute passes. Inside a pass, wgpu puts a barrier before a dispatch
//! that writes a buffer which an earlier one uses, or uses one that an earlier one writes, in
//! whatever range. All dispatches before the barrier must then end. Here dispatches that do not
//! conflict share a pass. It needs one barrier, at its start, and a GPU can run its dispatches at
//! the same time.

use super::record::Dispatch;
use super::reflect::{Reflection, Role};
use crate::view::Buffer;

/// A buffer that a dispatch binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The buffer.
    pub buffer: Buffer,
    /// Whether the shader may write it.
    pub writes: bool,
}

/// The storage buffers that a dispatch binds.
pub fn uses(dispatch: &Dispatch, reflection: &Reflection) -> Vec<Use> {
    let mut found = Vec::new();
    for (name, view) in &dispatch.bindings {
        let role = reflection.binding(name).map(|binding| &binding.role);
        if let Some(&Role::Storage { writable, .. }) = role {
            found.push(Use { buffer: view.buffer, writes: writable });
        }
    }
    found
}

/// Whether two dispatches must not run at the same time.
fn conflict(a: &[Use], b: &[Use]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.buffer == b.buffer && (a.writes || b.writes)))
}

/// The passes in order: for each the indices of its dispatches. A dispatch comes in the first pass
/// after those of all earlier dispatches that it conflicts with.
pub fn passes(dispatches: &[Vec<Use>]) -> Vec<Vec<usize>> {
    let mut passes: Vec<Vec<usize>> = Vec::new();
    for (i, uses) in dispatches.iter().enumerate() {
        let conflicts = |pass: &Vec<usize>| pass.iter().any(|&j| conflict(uses, &dispatches[j]));
        let after = passes.iter().rposition(conflicts).map_or(0, |pass| pass + 1);
        if after == passes.len() {
            passes.push(Vec::new());
        }
        passes[after].push(i);
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dispatch that reads and writes the buffers with these numbers.
    fn dispatch(reads: &[u32], writes: &[u32]) -> Vec<Use> {
        let uses = |buffers: &[u32], writes| -> Vec<Use> {
            let each = |index: &u32| Use { buffer: Buffer::planned(*index), writes };
            buffers.iter().map(each).collect()
        };
        [uses(reads, false), uses(writes, true)].concat()
    }

    #[test]
    fn gradients_of_one_layer_share_a_pass() {
        // A layer reads its output's gradient 1 twice: with its input 2 it gives the weight's
        // gradient 3, and with its weight 4 the input's gradient 5. The next layer has 6 to 8.
        let layers = [
            dispatch(&[1, 2], &[3]),
            dispatch(&[1, 4], &[5]),
            dispatch(&[5, 6], &[3]),
            dispatch(&[5, 7], &[8]),
        ];
        assert_eq!(passes(&layers), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_dispatch_runs_after_all_that_it_conflicts_with() {
        // Read after write, write after read, write after write.
        for [first, second] in [
            [dispatch(&[], &[1]), dispatch(&[1], &[2])],
            [dispatch(&[1], &[2]), dispatch(&[], &[1])],
            [dispatch(&[], &[1]), dispatch(&[], &[1])],
        ] {
            assert_eq!(passes(&[first, second]), [[0], [1]]);
        }
        assert_eq!(passes(&[dispatch(&[1], &[2]), dispatch(&[1], &[3])]), [[0, 1]]);
        // The third needs nothing and comes first; the fourth needs it and the second.
        let chain = [
            dispatch(&[1], &[2]),
            dispatch(&[2], &[3]),
            dispatch(&[1], &[4]),
            dispatch(&[3, 4], &[5]),
        ];
        assert_eq!(passes(&chain), [vec![0, 2], vec![1], vec![3]]);
    }
}
