//!include grid fours map lane key rank
// mask = 1 for the k largest x of the whole batch by signed value, else 0. Ties go to the lowest
//   NCHW index, samples first.
// threshold[0] tracks the smallest selected value above 0: it takes that value while it is 0
//   (unset), else it moves towards it by `rate`.
// A radix selection: four passes over the bytes of the keys. Further passes over the bytes of the
//   NCHW index follow; they count nothing if no tie has to be broken.
// Layouts: x and mask (N,H,W,C), threshold (1).
// Workgroup: one workgroup does everything.
// Grid: 1 workgroup of 256.
// Precondition: k <= N * C * H * W.
// Twin: BatchTopKMask in src/ops/mask/cpu.rs.
struct Params {
    len: u32,
    c: u32,
    area: u32,
    k: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> threshold: array<f32>;
@group(0) @binding(3) var<storage, read_write> mask: array<Map4>;

var<workgroup> smallest: atomic<u32>;

const NONE = 0xffffffffu;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    let vectors = (p.len + 3u) / 4u;
    // The smallest key kept, byte by byte from the most significant.
    var digit = Digit(0u, p.k, p.len);
    var cut = 0u;
    clear_digits(local, 256u);
    for (var shift = 32u; shift > 0u; shift -= 8u) {
        for (var i = local; i < vectors; i += 256u) {
            let v = map4(x[i]);
            for (var lane = 0u; lane < 4u; lane++) {
                let key = key_of(v[lane]);
                if i * 4u + lane < p.len && high_bits(key, shift) == high_bits(cut, shift) {
                    count_digit(key >> (shift - 8u));
                }
            }
        }
        digit = choose_digit(local, digit.wanted);
        cut |= digit.value << (shift - 8u);
    }
    // The lowest rank kept among the elements whose key equals the cut.
    var lowest = 0u;
    let tied = digit.wanted < digit.count;
    for (var shift = whole_byte_bits(p.len - 1u); shift > 0u; shift -= 8u) {
        for (var i = local; tied && i < vectors; i += 256u) {
            let v = map4(x[i]);
            for (var lane = 0u; lane < 4u; lane++) {
                if i * 4u + lane < p.len && key_of(v[lane]) == cut {
                    let rank = rank_of(i * 4u + lane, p.len, p.c, p.area);
                    if high_bits(rank, shift) == high_bits(lowest, shift) {
                        count_digit(rank >> (shift - 8u));
                    }
                }
            }
        }
        digit = choose_digit(local, digit.wanted);
        lowest |= digit.value << (shift - 8u);
    }
    if local == 0u {
        atomicStore(&smallest, NONE);
    }
    workgroupBarrier();
    // NONE is also the key of NaN. As the largest key it never becomes the minimum.
    var min_key = NONE;
    for (var i = local; i < vectors; i += 256u) {
        let v = map4(x[i]);
        var kept = vec4<f32>(0.0);
        for (var lane = 0u; lane < 4u; lane++) {
            let element = i * 4u + lane;
            let key = key_of(v[lane]);
            if element < p.len && (key > cut
                || (key == cut && rank_of(element, p.len, p.c, p.area) >= lowest)) {
                kept = select(kept, vec4<f32>(1.0), is_lane(lane));
                if key > key_of(0.0) {
                    min_key = min(min_key, key);
                }
            }
        }
        mask[i] = to_map4(kept);
    }
    atomicMin(&smallest, min_key);
    workgroupBarrier();
    if local == 0u && atomicLoad(&smallest) != NONE {
        let value = float_of(atomicLoad(&smallest));
        let old = threshold[0];
        threshold[0] = select(old + p.rate * (value - old), value, old == 0.0);
    }
}
