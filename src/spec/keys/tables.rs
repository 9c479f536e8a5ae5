//! The keys of the tables of a configuration.

use crate::data::{NanName, NormalizeName};
use crate::model::keys::Unwritten::{Is, Required, Without};
use crate::model::keys::{Bounds, KeyEntry, MAX_WHOLE, Values, key, whole_from as from};
use crate::model::{CorruptionSpec, LayerOp};
use crate::raster::corrupt::MaskKind;
use crate::spec::{
    FitName, LossName, MAX_MELS, MAX_WINDOW, OptimizerName, PenaltyName, ScheduleName,
    SpectrogramName, StorageName,
};

/// A number from 0 up.
const POSITIVE_OR_0: Values = Values::Number(Bounds::from(0.0));
/// At least 0 and below 1.
const SHARE: Values = Values::Number(Bounds::SHARE);
/// Above 0 and below 1.
const INSIDE: Values = Values::Number(Bounds::INSIDE);
/// True or false.
const FLAG: Values = Values::Flag;
/// Any text.
const TEXT: Values = Values::Text;

/// A range of the standard deviation of noise, on the scale of 8 bits.
const QUALITY: Bounds = Bounds { max: 100.0, ..Bounds::from(1.0) };
const SIGMA: Bounds = Bounds { max: 255.0, ..Bounds::from(0.0) };

#[rustfmt::skip] // a row of a table each
pub(super) const KEYS: &[KeyEntry] = &[
    key("seed", from(0), Is("0"), "Seed of all random numbers"),

    key("data.source", TEXT, Is("\"photos\""),
        "Images: a bundled set, a folder, a file, a pattern, or a list (@FILE, or - for standard \
         input)"),
    key("data.more_sources", Values::Texts, Is("[]"),
        "More folders, image files and patterns, read together with source"),
    key("data.validation_source", TEXT, Without("a share of the images is held out"),
        "Separate validation images"),
    key("data.strict", FLAG, Is("false"),
        "Fail on files that do not decode, instead of skipping them"),
    key("data.fit", Values::Choice(FitName::NAMES), Is("\"crop\""),
        "How images are brought to the input size: random crops, resizing, or every patch of a \
         grid"),
    key("data.crop", from(1), Is("32"),
        "Side in pixels of square crops, for a model without a fixed input size; of signals the \
         length, 1024 by default"),
    key("data.crops_per_image", from(0), Is("0"),
        "Crops of each image in an epoch; 0: enough to cover the image once"),
    key("data.variants", from(0), Is("0"),
        "Variants of each training image that are added in memory before training: smaller, down \
         to half the size, and of three channels with other saturation and colour balance"),
    key("data.flip_x", FLAG, Is("false"), "Augmentation: flip samples left to right at random"),
    key("data.flip_y", FLAG, Is("false"), "Augmentation: flip samples top to bottom at random"),
    key("data.turn", FLAG, Is("false"), "Augmentation: transpose square samples at random"),
    key("data.validation", SHARE, Is("0.1"), "Share of the images held out for validation"),
    key("data.validation_patches", from(0), Is("2048"),
        "Maximum number of patches in a validation; 0: all"),
    key("data.layout", Values::Layout, Without("inferred"),
        "What the axes of an array stand for, outermost first: N samples, C channels, H rows, W \
         columns, L signals"),
    key("data.nan", Values::Choice(NanName::NAMES), Is("\"error\""),
        "What happens to values that are not finite; zero: they become 0 after normalisation; \
         mask: they are missing, filled for the model and left out of the loss"),
    key("data.normalize", Values::Choice(NormalizeName::NAMES), Is("\"auto\""),
        "How the channels are normalised: not, by their range, by mean and standard deviation, or \
         by median and interquartile range; auto: by what the samples are"),
    key("data.range", Values::Range, Without("normalize decides"),
        "Two values of the samples that become 0 and 1"),
    key("data.storage", Values::Choice(StorageName::NAMES), Is("\"same\""),
        "Type of the training samples in memory: that of the files, or f16 for f32, which takes \
         half the memory"),
    key("data.show_channels", Values::Wholes(0, MAX_WHOLE), Is("[]"),
        "Channels that pictures show, numbered from 0; by default of two or more than three the \
         first principal components, of signals the first six"),

    key("data.spectrogram", Values::Choice(SpectrogramName::NAMES), Is("\"none\""),
        "What recordings (WAV files) become; log-mel: images of mel bands × frames, in dB"),
    key("data.spectrogram_window", Values::Whole(1, MAX_WINDOW as u64), Is("1024"),
        "Length of a window of a spectrogram in samples"),
    key("data.spectrogram_hop", Values::Whole(1, MAX_WINDOW as u64), Is("256"),
        "Samples from one window to the next"),
    key("data.spectrogram_mels", Values::Whole(1, MAX_MELS as u64), Is("64"),
        "Number of mel bands, on Slaney's scale"),
    key("data.spectrogram_range", Values::Frequencies, Without("0 to half of the sample rate"),
        "Lowest and highest frequency in Hz"),
    key("data.spectrogram_frames", from(0), Is("0"),
        "Frames of a piece of a recording; 0: whole recordings if all have the same length, \
         otherwise pieces of crop frames"),

    key("model.input", Values::Dims, Without("the size of the data"), "Input size"),
    key("model.code", TEXT, Required, "Name of the layer whose output is the code"),
    key("model.output", TEXT, Without("the last layer"),
        "Name of the layer whose output is the reconstruction"),
    key("model.target", TEXT, Without("the input"),
        "Name of the layer whose output is to be reconstructed; nothing before it is learned"),
    key("model.layers", Values::Layers, Required,
        "The layers; each comes after the layers that it reads"),
    key("model.classes", Values::Texts, Is("[]"),
        "Class names of a classifier; training records them here"),
    key("model.labels.instances", FLAG, Is("false"),
        "Label images have numbers of objects; training records it here"),
    key("model.labels.ignore", Values::Whole(0, 65535), Without("no label is ignored"),
        "Label of pixels to ignore; training records it here"),
    key("model.normalization", Values::Normalization,
        Without("the full range of integers is 0 to 1, and floats are kept"),
        "Offset and divisor of each channel of the samples; training records them here"),
    key("model.spectrogram", Values::Spectrogram, Without("recordings are signals"),
        "How recordings become images; training records it here"),
    key("model.undoes", Values::Corruption, Without("images are not corrupted"),
        "The corruption that the model was trained to undo; training records it here"),

    key("corruption.sigma", Values::TwoNumbers(SIGMA), Without("no noise"),
        "Noise: range of the standard deviation on the 0-255 scale, sampled for each image"),
    key("corruption.missing", Values::TwoNumbers(Bounds::SHARE), Without("no missing pixels"),
        "Missing pixels: range of their share, sampled for each image; needs masks"),
    key("corruption.masks", Values::Choices(MaskKind::NAMES), Is("[]"),
        "Kinds of masks for missing, one sampled for each image"),
    key("corruption.scales", Values::Wholes(2, CorruptionSpec::MAX_SCALE as u64), Is("[]"),
        "Super-resolution: factors by which images are shrunk and enlarged again"),
    key("corruption.quality", Values::TwoNumbers(QUALITY), Without("no compression"),
        "JPEG compression: range of the quality, sampled a few times for each image"),

    key("loss.kind", Values::Choice(LossName::NAMES),
        Is("\"sum_squares\""), "Reconstruction loss"),
    key("loss.eps", POSITIVE_OR_0, Is("1e-3"), "Epsilon of the Charbonnier loss"),

    key("sparsity.penalty", Values::Choice(PenaltyName::NAMES), Is("\"none\""),
        "Sparsity penalty on the code; selections such as TopK are layers"),
    key("sparsity.lambda", POSITIVE_OR_0, Is("1e-3"), "Weight of the L1 penalty"),
    key("sparsity.beta", POSITIVE_OR_0, Is("0.1"), "Weight of the KL penalty"),
    key("sparsity.rho", INSIDE, Is("0.05"), "Target mean activity of the KL penalty"),
    key("sparsity.warmup_epochs", POSITIVE_OR_0, Is("0"),
        "Epochs over which the penalty grows from 0 to its weight"),
    key("sparsity.warmup_steps", from(0), Is("0"),
        "The same in steps; above 0 it replaces warmup_epochs"),
    key("sparsity.revive_strength", POSITIVE_OR_0, Is("0"),
        "Gradient that raises dead units of the code; 0: none"),
    key("sparsity.revive_patience", from(0), Is("100"),
        "Steps without firing after which a unit is dead"),
    key("sparsity.aux_alpha", POSITIVE_OR_0, Is("0"),
        "Weight of the auxiliary loss of dead units of a top_k or batch_top_k code; 0: none"),
    key("sparsity.aux_k", from(0), Is("0"),
        "Active elements of a sample, all positions together, in the auxiliary loss; 0: the number \
         that the code keeps"),

    key("optimizer.kind", Values::Choice(OptimizerName::NAMES), Is("\"sgd\""),
        "Optimiser"),
    key("optimizer.lr", POSITIVE_OR_0, Is("1e-3"), "Peak learning rate"),
    key("optimizer.momentum", SHARE, Is("0.9"), "Momentum of sgd"),
    key("optimizer.nesterov", FLAG, Is("false"), "Nesterov momentum of sgd"),
    key("optimizer.betas", Values::TwoNumbers(Bounds::SHARE), Is("[0.9, 0.999]"),
        "Decay rates of the moments of adam, adamw and lion"),
    key("optimizer.eps", POSITIVE_OR_0, Is("1e-8"), "Epsilon of adam and adamw"),
    key("optimizer.weight_decay", POSITIVE_OR_0, Is("0"),
        "Weight decay; adamw and lion decouple it from the gradient"),
    key("optimizer.clip_norm", POSITIVE_OR_0, Is("0"),
        "Maximum global norm of the gradient; 0: no clipping"),
    key("optimizer.encoder_lr", POSITIVE_OR_0, Is("1"),
        "Factor on the learning rate of the layers before head; 0 freezes them"),

    key("schedule.kind", Values::Choice(ScheduleName::NAMES),
        Is("\"constant\""), "Shape of the learning-rate schedule"),
    key("schedule.warmup_epochs", POSITIVE_OR_0, Is("0"),
        "Epochs over which the learning rate grows from 0"),
    key("schedule.warmup_steps", from(0), Is("0"),
        "The same in steps; above 0 it replaces warmup_epochs"),
    key("schedule.every_epochs", Values::Number(Bounds::POSITIVE), Is("10"),
        "step: epochs between two drops"),
    key("schedule.gamma", POSITIVE_OR_0, Is("0.1"), "step: factor of each drop"),
    key("schedule.floor", POSITIVE_OR_0, Is("0"),
        "cosine, half_cosine and one_cycle: factor at the end"),
    key("schedule.rise", INSIDE, Is("0.3"),
        "one_cycle: share of the training in which the rate rises"),

    key("train.batch", from(1), Is("128"), "Samples (images or crops) in a step"),
    key("train.accumulate", from(1), Is("1"),
        "Equal parts of a batch that run one after the other: less memory, the same result"),
    key("train.precision", Values::Choice(&["f32", "f16"]), Is("\"f32\""),
        "Number format of layer outputs and their gradients"),
    key("train.loss_scale", POSITIVE_OR_0, Is("0"),
        "Loss scale for f16; 0: the divisor of the loss"),
    key("train.epochs", Values::Number(Bounds::POSITIVE), Is("10"),
        "Number of epochs; for classify, segment and detect the default depends on the number of \
         images"),
    key("train.steps", from(0), Is("0"), "Number of steps; above 0 it replaces epochs"),
    key("train.log_every", Values::Whole(1, 10_000), Is("50"), "Steps between log lines"),
    key("train.validate_every", POSITIVE_OR_0, Is("1"),
        "Epochs between validations; 0: only at the end"),
    key("train.checkpoint_every", from(0), Is("0"), "Steps between checkpoints; 0: by time only"),
    key("train.checkpoint_minutes", POSITIVE_OR_0, Is("5"),
        "Minutes between checkpoints; 0: by steps only"),
    key("train.keep", from(1), Is("1"), "Number of checkpoints kept"),
    key("train.patience", from(0), Is("0"),
        "Validations without improvement after which training stops; 0: it goes on"),
    key("train.from", TEXT, Without("all parameters are initialised"),
        "Model to start from: parameters with the same name and shape are copied"),
    key("train.retries", Values::Whole(0, u32::MAX as u64), Is("0"),
        "How often a training that diverges goes back and halves its learning rate"),

    key("classify.labels", from(0), Is("0"), "Number of labelled training images; 0: all"),
    key("classify.head", Values::Choice(&["probe", "fresh"]), Is("\"probe\""),
        "Initialisation of the head: a linear classifier fitted to the features, or at random"),
    key("classify.shift", from(0), Is("0"),
        "Augmentation: maximum random shift along each side, in pixels"),
    key("classify.resize", FLAG, Is("false"), "Resize images to the model's input"),
    key("classify.test", TEXT, Without("no test"), "Labelled test images, evaluated at the end"),

    key("segment.labels", TEXT, Without("labels or masks beside the images"),
        "Folder of label images"),
    key("segment.instances", FLAG, Is("false"), "Labels are numbers of objects; 0 is background"),
    key("segment.ignore", Values::Whole(0, 65535), Without("no label is ignored"),
        "Label of pixels to ignore"),
    key("segment.images", from(0), Is("0"), "Number of training images; 0: all"),
    key("segment.augment", Values::Choice(&["none", "flip", "all", "photo"]),
        Is("\"flip\""),
        "Augmentation: left-right flips; all flips, rotations and small changes of light; or \
         left-right flips, zoom and small changes of light and colour"),
    key("segment.crops", Values::Choice(&["random", "balanced"]), Is("\"random\""),
        "Positions of crops: anywhere, or around a random pixel of a random class of the image"),
    key("segment.class_weights", TEXT, Is("\"even\""),
        "Weights of classes in the loss: even, median, or numbers with commas between them"),
    key("segment.dice", POSITIVE_OR_0, Is("1"), "Weight of the Dice loss"),
    key("segment.test", TEXT, Without("no test"),
        "Test images with labels, evaluated at the end"),

    key("detect.annotations", TEXT, Without("Annotations beside the images"),
        "Folder of Pascal VOC XML files"),
    key("detect.coco", TEXT, Without("Pascal VOC"), "COCO JSON file"),
    key("detect.split", TEXT, Without("all images"),
        "List of training images in ImageSets/Main of Pascal VOC"),
    key("detect.validation_split", TEXT, Without("a share of the images is held out"),
        "List of validation images"),
    key("detect.images", from(0), Is("0"), "Number of training images; 0: all"),
    key("detect.augment", Values::Choice(&["none", "move", "all"]), Is("\"move\""),
        "Augmentation: zoom, translation and left-right flips, or all flips and rotations too"),
    key("detect.objectness", Values::Choice(&["focal", "bce"]), Is("\"focal\""),
        "Loss of the objectness"),
    key("detect.test", TEXT, Without("no test"), "Test images with boxes, evaluated at the end"),
    key("detect.test_split", TEXT, Without("all images"), "List of test images"),

    key("prior.model", TEXT, Is("\"\""), "File of the autoencoder"),
    key("prior.components", from(0), Is("0"),
        "Number of Gaussians of the mixture; 0: the number with the best criterion"),
    key("prior.ignore_labels", FLAG, Is("false"), "Ignore the classes of images"),
    key("prior.resize", FLAG, Is("false"), "Resize images to the model's input"),
];

/// The keys of every layer.
#[rustfmt::skip] // a row of a table each
pub(super) const OF_LAYERS: &[KeyEntry] = &[
    key("name", TEXT, Required, "Unique name; parameters are named after it"),
    key("op", Values::Choice(LayerOp::NAMES), Required, "Operation"),
    key("from", Values::Texts, Without("the layer before"),
        "Names of the layers that it reads; input is the image"),
    key("frozen", FLAG, Is("false"), "Training leaves its parameters unchanged"),
];
