//!include grid fours map key batch_top_k
// A pass over the keys of a batch selection: how often each value of their byte `number` (from the
// highest) occurs among the keys that agree with the bytes found before. The first pass also finds
// the smallest key above 0. x (N,H,W,C), work (passes, RECORD).
// Every workgroup first reads the last pass's digit from its counts, the same answer everywhere;
// the first notes it for the next pass.
// One invocation: vec4s first, first + stride, ... Grid: stride / 256 workgroups of 256. Counts are
// integers: their order is of no matter.
// Precondition: k <= N * C * H * W. Twin: BatchTopKMask in src/reference/mask.rs.
struct Params {
    len: u32,
    number: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> work: array<atomic<u32>>;

var<workgroup> smallest: atomic<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_invocation(group, groups, local, 256u);
    var bound = Bound(0u, 0u);
    if p.number > 0u {
        let digit = found_digit(local, p.number - 1u);
        bound = bound_after(p.number - 1u, digit.value, p.len);
        if first == 0u {
            note(p.number, bound, digit.wanted);
        }
    }
    if local == 0u {
        atomicStore(&smallest, NONE);
    }
    clear_digits(local, 256u);
    let shift = shift_of(p.number, p.len);
    let known = above(bound.cut, shift + 8u);
    let zero = key_of(0.0);
    // NONE is also NaN's key, which is never below itself.
    var least = NONE;
    for (var i = first; i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        for (var lane = 0u; lane < 4u; lane++) {
            let key = key_of(v[lane]);
            if i * 4u + lane < p.len && above(key, shift + 8u) == known {
                count_digit(key >> shift);
                least = select(least, min(least, key), key > zero);
            }
        }
    }
    if p.number == 0u {
        atomicMin(&smallest, least);
    }
    workgroupBarrier();
    add_counts(local, p.number);
    if p.number == 0u && local == 0u {
        atomicMin(&work[SMALLEST], atomicLoad(&smallest));
    }
}
