//!include grid fours map key
// mask = 1 for the k largest x of each sample by signed value, else 0. Ties go to the lowest NCHW
//   index.
// A radix selection: four passes over the bytes of the keys. Further passes over the bytes of the
//   NCHW index follow; they count nothing if no tie has to be broken.
// Layouts: x and mask (N,H,W,C).
// Workgroup: one sample.
// Grid: N workgroups of 256.
// Precondition: k <= C * H * W.
// Twin: TopKMask in src/ops/mask/cpu.rs.
struct Params {
    n: u32,
    c: u32,
    area: u32,
    k: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> mask: array<Map>;

// The rank of the element at index i in memory: larger for a lower NCHW index.
fn rank_of(i: u32) -> u32 {
    return p.c * p.area - 1u - (i % p.c * p.area + i / p.c);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = flat_workgroup(group, groups);
    if n >= p.n {
        return;
    }
    let len = p.c * p.area;
    let first = n * len;
    // The smallest key kept, byte by byte from the most significant.
    var digit = Digit(0u, p.k, len);
    var cut = 0u;
    clear_digits(local, 256u);
    for (var shift = 32u; shift > 0u; shift -= 8u) {
        for (var i = local; i < len; i += 256u) {
            let key = key_of(f32(x[first + i]));
            if high_bits(key, shift) == high_bits(cut, shift) {
                count_digit(key >> (shift - 8u));
            }
        }
        digit = choose_digit(local, digit.wanted);
        cut |= digit.value << (shift - 8u);
    }
    // The lowest rank kept among the elements whose key equals the cut.
    var lowest = 0u;
    let tied = digit.wanted < digit.count;
    for (var shift = whole_byte_bits(len - 1u); shift > 0u; shift -= 8u) {
        for (var i = local; tied && i < len; i += 256u) {
            if key_of(f32(x[first + i])) == cut {
                let rank = rank_of(i);
                if high_bits(rank, shift) == high_bits(lowest, shift) {
                    count_digit(rank >> (shift - 8u));
                }
            }
        }
        digit = choose_digit(local, digit.wanted);
        lowest |= digit.value << (shift - 8u);
    }
    for (var i = local; i < len; i += 256u) {
        let key = key_of(f32(x[first + i]));
        let kept = key > cut || (key == cut && rank_of(i) >= lowest);
        mask[first + i] = Map(select(0.0, 1.0, kept));
    }
}
