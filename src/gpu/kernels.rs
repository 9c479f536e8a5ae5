//! The registry of kernels, one line each. A kernel has the name of its shader file.

macro_rules! kernels {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A WGSL kernel, `shaders/{name}.wgsl`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Kernel { $($variant),* }

        impl Kernel {
            /// Every kernel.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Name: that of the file, the label, and the id in tests and benches.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Text of the file, without its includes.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => {
                        include_str!(concat!("../../shaders/", $name, ".wgsl"))
                    }),*
                }
            }
        }
    };
}

kernels! {
    Conv2dFwd "conv2d_fwd",
    Conv2dFwdRegs "conv2d_fwd_regs",
    Conv2dFwdSubgroup "conv2d_fwd_subgroup",
    Conv2dFwdTiled "conv2d_fwd_tiled",
    Conv2dFwdMatrix "conv2d_fwd_matrix",
    Conv2dMaxPoolFwd "conv2d_max_pool_fwd",
    Conv2dMaxPoolFwdRegs "conv2d_max_pool_fwd_regs",
    Conv2dMaxPoolFwdSubgroup "conv2d_max_pool_fwd_subgroup",
    Conv2dMaxPoolFwdTiled "conv2d_max_pool_fwd_tiled",
    Conv2dMaxPoolFwdMatrix "conv2d_max_pool_fwd_matrix",
    Conv2dBwdInput "conv2d_bwd_input",
    Conv2dBwdInputRegs "conv2d_bwd_input_regs",
    Conv2dBwdInputSubgroup "conv2d_bwd_input_subgroup",
    Conv2dBwdInputTiled "conv2d_bwd_input_tiled",
    Conv2dBwdInputMatrix "conv2d_bwd_input_matrix",
    Conv2dBwdWeight "conv2d_bwd_weight",
    Conv2dBwdWeightRegs "conv2d_bwd_weight_regs",
    Conv2dBwdWeightSubgroup "conv2d_bwd_weight_subgroup",
    Conv2dBwdWeightTiled "conv2d_bwd_weight_tiled",
    Conv2dBwdWeightMatrix "conv2d_bwd_weight_matrix",
    SumSlices "sum_slices",
    ActivationFwd "activation_fwd",
    ActivationBwd "activation_bwd",
    ActivationBwdOutput "activation_bwd_output",
    MaxPool2dFwd "max_pool2d_fwd",
    MaxPool2dBwd "max_pool2d_bwd",
    MaxPool2dBwdDisjoint "max_pool2d_bwd_disjoint",
    AvgPool2dFwd "avg_pool2d_fwd",
    AvgPool2dBwd "avg_pool2d_bwd",
    L2Pool2dFwd "l2_pool2d_fwd",
    L2Pool2dBwd "l2_pool2d_bwd",
    MaxUnpool2dFwd "max_unpool2d_fwd",
    MaxUnpool2dBwd "max_unpool2d_bwd",
    UpsampleNearest2dFwd "upsample_nearest2d_fwd",
    UpsampleNearest2dBwd "upsample_nearest2d_bwd",
    Combine "combine",
    AddAssign "add_assign",
    CopyChannels "copy_channels",
    MaskApply "mask_apply",
    DropoutMask "dropout_mask",
    TopKMask "top_k_mask",
    BatchTopKMask "batch_top_k_mask",
    BatchTopKClear "batch_top_k_clear",
    BatchTopKCount "batch_top_k_count",
    BatchTopKCountRanks "batch_top_k_count_ranks",
    BatchTopKSelect "batch_top_k_select",
    ThresholdMask "threshold_mask",
    SpatialWtaMask "spatial_wta_mask",
    LifetimeWtaSums "lifetime_wta_sums",
    LifetimeWtaMask "lifetime_wta_mask",
    SoftThresholdFwd "soft_threshold_fwd",
    SoftThresholdBwd "soft_threshold_bwd",
    Loss "loss",
    CrossEntropy "cross_entropy",
    PixelCrossEntropy "pixel_cross_entropy",
    DiceSums "dice_sums",
    DiceSlopes "dice_slopes",
    DiceBwd "dice_bwd",
    GridDetection "grid_detection",
    L1Penalty "l1_penalty",
    KlPenaltyMeans "kl_penalty_means",
    KlPenalty "kl_penalty",
    SumScalar "sum_scalar",
    ChannelSum "channel_sum",
    CountNonzero "count_nonzero",
    SumSquares "sum_squares",
    FiringUpdate "firing_update",
    IdleUpdate "idle_update",
    Revive "revive",
    IdleOnly "idle_only",
    ClipGrads "clip_grads",
    Sgd "sgd",
    Adam "adam",
    MaxNorm "max_norm",
    ProjectGrad "project_grad",
    GatherBatch "gather_batch",
    GaussianNoise "gaussian_noise",
    MissingShapes "missing_shapes",
    MissingPixels "missing_pixels",
    FillMissing "fill_missing",
    LocalContrastSums "local_contrast_sums",
    LocalContrast "local_contrast",
    BicubicDownUp "bicubic_down_up",
}

macro_rules! snippets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/common/", $name, ".wgsl")))),*]
    };
}

/// The snippets that kernels include: name and text.
const COMMON: &[(&str, &str)] = snippets![
    "activation",
    "batch_top_k",
    "conv2d",
    "conv2d_bwd_input_product",
    "conv2d_bwd_weight_product",
    "conv2d_fwd_pixels",
    "conv2d_fwd_product",
    "conv2d_fwd_registers",
    "conv2d_fwd_sum",
    "conv2d_fwd_windows",
    "fours",
    "fours_int64",
    "gate",
    "glyphs",
    "grid",
    "idle",
    "key",
    "lanes",
    "largest",
    "log",
    "map",
    "map_half",
    "matrix",
    "matrix_emulated",
    "matrix_tile",
    "nan",
    "normal",
    "pool2d",
    "rank",
    "rng",
    "rows",
    "step",
    "subgroup_tile",
    "threshold",
    "workgroup_tile",
];

/// How kernels access memory and multiply matrices: which snippets replace the default ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Storage {
    /// Access four f32 as two 64-bit words ([`super::Traits::wide_words`]).
    pub int64: bool,
    /// Maps are in half precision.
    pub half: bool,
    /// Cooperative matrices are emulated.
    pub emulated: bool,
}

impl Storage {
    /// The snippet that replaces `name`.
    fn snippet(self, name: &'static str) -> &'static str {
        match (name, self) {
            ("fours", Self { int64: true, .. }) => "fours_int64",
            ("map", Self { half: true, .. }) => "map_half",
            ("matrix", Self { emulated: true, .. }) => "matrix_emulated",
            _ => name,
        }
    }
}

/// A kernel's text with its includes joined in front, and the origin of each line.
#[derive(Clone, Debug)]
pub struct Source {
    /// Plain WGSL.
    pub text: String,
    /// Parts of the text: (first line in `text`, file, first line in the file), lines from 1.
    pieces: Vec<(usize, String, usize)>,
}

impl Source {
    /// Joins the snippets named by the `//!include a b c` lines in front of the kernel.
    ///
    /// # Panics
    /// If a named snippet does not exist; a test checks this for all kernels.
    pub fn of(kernel: Kernel) -> Self {
        Self::with(kernel, Storage::default())
    }

    /// As [`Source::of`], with the snippets of `storage`.
    pub fn with(kernel: Kernel, storage: Storage) -> Self {
        let mut text = String::new();
        let mut pieces = Vec::new();
        let names = kernel
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("//!include "))
            .flat_map(str::split_whitespace);
        let names: Vec<&str> = names.map(|name| storage.snippet(name)).collect();
        // `enable` directives must come first. Matrix kernels need f16 for their operands, whatever
        // the maps are.
        if storage.half || names.contains(&"matrix_tile") {
            text.push_str("enable f16;\n");
        }
        if names.contains(&"matrix") {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for name in names {
            let (_, snippet) =
                COMMON.iter().find(|(common, _)| *common == name).unwrap_or_else(|| {
                    panic!("{}.wgsl includes {name}, which is not in shaders/common", kernel.name())
                });
            pieces.push((text.lines().count() + 1, format!("shaders/common/{name}.wgsl"), 1));
            text.push_str(snippet);
        }
        pieces.push((text.lines().count() + 1, format!("shaders/{}.wgsl", kernel.name()), 1));
        text.push_str(kernel.text());
        Self { text, pieces }
    }

    /// File and line from which a line of the joined text comes; lines count from 1.
    pub fn locate(&self, line: usize) -> (&str, usize) {
        let (start, file, first) =
            self.pieces.iter().rev().find(|(start, ..)| *start <= line).unwrap_or(&self.pieces[0]);
        (file, line - start + first)
    }

    /// Names of the snippets of `shaders/common`.
    pub fn common_names() -> impl Iterator<Item = &'static str> {
        COMMON.iter().map(|(name, _)| *name)
    }
}
