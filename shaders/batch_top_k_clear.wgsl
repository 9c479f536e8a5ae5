//!include grid key batch_top_k
// Initialises the records of a batch-wide top-k selection: every digit count is 0, `wanted`
//   elements are still to be found, and NONE is the smallest key above 0.
// Layouts: work (passes, RECORD), see common/batch_top_k.wgsl.
// Invocation: one word.
// Grid: `words` invocations.
// Twin: none, the CPU path needs no records (BatchTopKMask in src/ops/mask/cpu.rs).
struct Params {
    words: u32,
    wanted: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> work: array<atomic<u32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i < p.words {
        let first = select(select(0u, NONE, i == SMALLEST), p.wanted, i == WANTED);
        atomicStore(&work[i], first);
    }
}
