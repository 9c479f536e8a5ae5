//!include grid fours map key batch_top_k
// One radix pass over the keys of a batch-wide top-k selection. Counts how often each value of byte
//   `number` (0 is the most significant) occurs among the keys whose higher bytes equal those found
//   so far. Pass 0 also finds the smallest key above 0.
// Each workgroup first derives the previous pass's digit from its counts, which gives the same
//   digit everywhere. Invocation 0 records it for the next pass.
// Layouts: x (N,H,W,C), work (passes, RECORD), see common/batch_top_k.wgsl.
// Invocation: vec4s first, first + stride, ... Counts are integers, so their order does not matter.
// Grid: stride / 256 workgroups of 256.
// Precondition: k <= N * C * H * W.
// Twin: BatchTopKMask in src/ops/mask/cpu.rs.
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
        let digit = read_digit(local, p.number - 1u);
        bound = bound_after(p.number - 1u, digit.value, p.len);
        if first == 0u {
            write_record(p.number, bound, digit.wanted);
        }
    }
    if local == 0u {
        atomicStore(&smallest, NONE);
    }
    clear_digits(local, 256u);
    let shift = shift_of(p.number, p.len);
    let known = high_bits(bound.cut, shift + 8u);
    let zero = key_of(0.0);
    // NONE is also the key of NaN. As the largest key it never becomes the minimum.
    var min_key = NONE;
    for (var i = first; i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        for (var lane = 0u; lane < 4u; lane++) {
            let key = key_of(v[lane]);
            if i * 4u + lane < p.len && high_bits(key, shift + 8u) == known {
                count_digit(key >> shift);
                min_key = select(min_key, min(min_key, key), key > zero);
            }
        }
    }
    if p.number == 0u {
        atomicMin(&smallest, min_key);
    }
    workgroupBarrier();
    add_counts(local, p.number);
    if p.number == 0u && local == 0u {
        atomicMin(&work[SMALLEST], atomicLoad(&smallest));
    }
}
