use super::machine::Times;
use super::*;
use crate::bench::roofline::shape::{Direction, Tile};
use crate::gpu::{Choice, Kernel};

const TILE_64: Tile = Tile {
    direction: Direction::Forward,
    columns: 64,
    elements: 64,
    groups: 4,
    iterations: 6,
    vectors: true,
    sums: 0,
};

/// Compares to 9 digits.
fn assert_near(found: f64, wanted: f64) {
    assert!((found / wanted - 1.0).abs() < 1e-9, "{found}, not {wanted}");
}

fn h200() -> Machine {
    Machine::new(KnownGpu::H200, None)
}

fn calls(batch: usize) -> Vec<Call> {
    let graph = Workload::named("w1").unwrap().graph().unwrap();
    planned(&graph, batch, Precision::F32).unwrap().1
}

#[test]
fn instructions_of_an_iteration_are_those_counted_by_hand() {
    // 4 × 264 + 106 and 16 × 4 + 18.
    let wide = TILE_64.instructions();
    assert_eq!((wide.arithmetic, wide.accesses), (1162.0, 82.0));
    // 4 × 134 + 152 + 6 and 16 × 3 + 18.
    let weight = Tile { direction: Direction::Weight, elements: 32, ..TILE_64 }.instructions();
    assert_eq!((weight.arithmetic, weight.accesses), (694.0, 66.0));
    // 4 × 70 + 250 and 16 × 2 + 18 + 12.
    let single = Tile { elements: 16, vectors: false, ..TILE_64 }.instructions();
    assert_eq!((single.arithmetic, single.accesses), (530.0, 62.0));
    // 8 × 70 + 250 and 32 × 2 + 18 + 12.
    let small = Tile { elements: 16, groups: 8, vectors: false, ..TILE_64 }.instructions();
    assert_eq!((small.arithmetic, small.accesses), (810.0, 94.0));
}

#[test]
fn a_grid_smaller_than_the_gpu_takes_the_time_of_a_lone_workgroup() {
    // 1,162 + 82 instructions, 4 × 30 + 680 cycles of waiting, 6 + 1.5 times.
    let (seconds, why) = h200().times(Shape::Product(TILE_64), 68, 1e6).longest();
    assert_near(seconds, 3.5e-6 + 7.5 * 2044.0 / 1.9e9);
    assert_eq!(why, Why::Latency);
    // RDNA 3 takes 2 cycles an instruction and issues loads beside them.
    let amd = Machine::new(KnownGpu::Rx7900Xtx, None);
    let (seconds, _) = amd.times(Shape::Product(TILE_64), 68, 1e6).longest();
    assert_near(seconds, 3.5e-6 + 7.5 * (2.0 * 1162.0 + 4.0 * 60.0 + 900.0) / 2.5e9);
}

#[test]
fn registers_and_workgroup_memory_limit_the_resident_workgroups() {
    let narrow = Tile { elements: 16, ..TILE_64 };
    // 65,536 / (64 × 168) = 6.1 and 65,536 / (64 × 96) = 10.7.
    assert_eq!((h200().resident(TILE_64), h200().resident(narrow)), (6.0, 10.0));
    // 64 KiB / 8 KiB.
    assert_eq!(Machine::new(KnownGpu::Rx7900Xtx, None).resident(narrow), 8.0);
}

#[test]
fn a_full_grid_takes_the_time_of_its_instructions() {
    // 20 workgroups per multiprocessor, each with 1,244 instructions of two groups of 32
    // invocations on four schedulers.
    let (seconds, why) = h200().times(Shape::Product(TILE_64), 20 * 132, 1e6).longest();
    assert_near(seconds, 3.5e-6 + 20.0 * 7.5 * 1244.0 / 2.0 / 0.57 / 1.9e9);
    assert_eq!(why, Why::Issue);
    // One workgroup more than four for each multiprocessor: one of them has five.
    let (seconds, _) = h200().times(Shape::Product(TILE_64), 4 * 132 + 1, 1e6).longest();
    assert_near(seconds, 3.5e-6 + 5.0 * 7.5 * 1244.0 / 2.0 / 0.57 / 1.9e9);
}

#[test]
fn the_waits_of_a_pass_overlap_and_its_work_does_not() {
    let machine = h200();
    let times = |waits: f64, issue, memory| Times { waits: (waits, Why::Chain), issue, memory };
    let pass = |dispatches: &[Times]| machine.pass(dispatches) / 1e-6;
    assert_near(pass(&[times(5e-6, 1e-6, 2e-6)]), 5.0 + 5.5);
    // The longer wait, and the launch of a second dispatch.
    let two = 1.33 * 5.5;
    assert_near(pass(&[times(5e-6, 1e-6, 2e-6), times(4e-6, 1e-6, 2e-6)]), 5.0 + two);
    assert_near(pass(&[times(5e-6, 4e-6, 0.0), times(1e-6, 3e-6, 0.0)]), 7.0 + two);
    assert_near(pass(&[times(5e-6, 0.0, 4e-6), times(1e-6, 0.0, 3e-6)]), 7.0 + two);
}

#[test]
fn bytes_take_the_rate_of_the_cache_or_of_memory() {
    let time = |shape, bytes| h200().times(shape, 1000, bytes).longest();
    let chain = Shape::Reduction(Chain::flat());
    // 50 % of the rate of the cache, 95 % of that of memory.
    assert_near(time(chain, 6.5e6).0, 2e-6);
    assert_near(time(chain, 432e6).0, 100e-6 / 0.95);
    assert_near(time(Shape::Flat, 432e6).0, 100e-6 / 0.95);
    assert_eq!(time(Shape::Flat, 432e6).1, Why::Memory);
    assert_near(h200().floor(67e6, 432e6), 100e-6);
    assert_near(h200().floor(67e9, 432e6), 1e-3);
}

#[test]
fn loads_in_flight_shorten_a_chain() {
    // 17 slices: two groups of eight, and one more.
    let chain = Chain::new(17, 8, true, 6);
    assert_eq!(chain.loads, 3);
    let (seconds, why) = h200().times(Shape::Reduction(chain), 1, 1e3).longest();
    assert_near(seconds, (3.0 * 300.0 + 6.0 * 120.0) / 1.9e9);
    assert_eq!(why, Why::Chain);
    assert_eq!(Chain::new(31, 4, false, 0).loads, 7 + 3);
    assert_eq!(Chain::new(32, 1, false, 0).loads, 32);
}

#[test]
fn measured_times_replace_assumptions() {
    let measured = Calibration { iteration: 2e-6, dispatch: 5e-6, load: 0.3e-6 };
    let machine = Machine::new(KnownGpu::H200, Some(measured));
    assert_eq!(machine.overhead, 5e-6);
    assert_near(machine.lone(TILE_64), 2e-6);
    assert_near(machine.near_load, 0.3e-6);
    assert_near(machine.far_load, 0.62e-6);
    // They do not change the rate of issue.
    let full = |machine: Machine| machine.times(Shape::Product(TILE_64), 1 << 20, 1e6).issue;
    let fast = Calibration { iteration: 1e-6, ..measured };
    assert_near(full(Machine::new(KnownGpu::H200, Some(fast))), full(h200()));
}

#[test]
fn a_recorded_split_product_has_the_sizes_counted_by_hand() {
    let calls = calls(128);
    let found = plan(&calls);
    // 1,568 terms in slices of 96: 17 slices of 2 × 2 tiles, each of 6 iterations.
    let split = &found[2];
    assert_eq!(split.dispatch.kernel, Kernel::Conv2dFwdTiledSplit);
    assert_eq!(split.dispatch.workgroups, 17 * 4);
    assert_eq!(Shape::of(&split.dispatch).unwrap(), Shape::Product(TILE_64));
    // Maps, weights and 17 sums of 128 × 128.
    let [map, weights, sums] = [128.0 * 1568.0, 1568.0 * 128.0, 128.0 * 128.0];
    assert_eq!(split.own[1], 4.0 * (map + weights + 17.0 * sums));
    assert_eq!(split.least, [2.0 * 1568.0 * sums, 4.0 * (map + weights + sums + 128.0)]);
    let second = &found[3];
    assert_eq!(second.dispatch.kernel, Kernel::Conv2dEpilogue);
    let chain = Chain { loads: 4 + 1, near: true, levels: 0 };
    assert_eq!(Shape::of(&second.dispatch).unwrap(), Shape::Reduction(chain));
    assert_eq!(second.own, [17.0 * sums, 4.0 * (17.0 * sums + 128.0 + sums)]);
    assert_eq!(second.least, [0.0; 2]);
}

#[test]
fn the_floors_have_the_work_of_every_operation_once() {
    let calls = calls(32);
    let least: f64 = plan(&calls).iter().map(|planned| planned.least[1]).sum();
    assert_near(least, calls.iter().map(|call| call.cost().bytes).sum());
}

#[test]
fn no_prediction_is_below_its_floor() {
    for gpu in KnownGpu::ALL {
        let found = roofline(*gpu, None, Workload::named("w1").unwrap(), 64).unwrap();
        for row in &found.rows {
            assert!(row.predicted_us > row.floor_us, "{gpu}: {row:?}");
        }
        let longest = found.longest(Some(10));
        assert!(longest.len() == 10 && longest[0].predicted_us >= longest[9].predicted_us);
        assert_eq!(found.longest(None).len(), found.sum.dispatches);
    }
}

#[test]
fn a_product_without_tiles_is_refused() {
    let mut recorder = Recorder { choice: Choice::Registers, ..Recorder::default() };
    calls(2)[0].record(&mut recorder);
    let error = Shape::of(&recorder.dispatches[0]).unwrap_err().to_string();
    assert!(error.contains("conv2d_max_pool_fwd_regs"), "{error}");
}
