//!include grid fours map key rank batch_top_k
// One radix pass over ranks, after all passes over keys of a batch-wide top-k selection. Counts how
//   often each value of a byte occurs among the ranks of the elements whose key equals the last key
//   kept. If no tie has to be broken it counts nothing.
// Each workgroup first derives the previous pass's digit from its counts, which gives the same
//   digit everywhere. Invocation 0 records it for the next pass.
// Layouts: x (N,H,W,C), work (passes, RECORD), see common/batch_top_k.wgsl.
// Invocation: vec4s first, first + stride, ... Counts are integers, so their order does not matter.
// Grid: stride / 256 workgroups of 256.
// Precondition: all passes over keys have run.
// Twin: BatchTopKMask in src/ops/mask/cpu.rs.
struct Params {
    len: u32,
    c: u32,
    area: u32,
    number: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> work: array<atomic<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_invocation(group, groups, local, 256u);
    let digit = read_digit(local, p.number - 1u);
    let bound = bound_after(p.number - 1u, digit.value, p.len);
    if first == 0u {
        write_record(p.number, bound, digit.wanted);
    }
    // Without a tie to break the counts stay 0, so the next pass finds digit 0 and counts nothing
    // either. It does not return here: see common/key.wgsl on barriers.
    let tied = digit.wanted < digit.count;
    let shift = shift_of(p.number, p.len);
    let known = high_bits(bound.lowest, shift + 8u);
    for (var i = first; tied && i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        for (var lane = 0u; lane < 4u; lane++) {
            let element = i * 4u + lane;
            if element < p.len && key_of(v[lane]) == bound.cut {
                let rank = rank_of(element, p.len, p.c, p.area);
                if high_bits(rank, shift + 8u) == known {
                    count_digit(rank >> shift);
                }
            }
        }
    }
    workgroupBarrier();
    add_counts(local, p.number);
}
