//! What messages advise, in the library's words. A user of the library sets an option; a user of
//! the program gives a flag. The program replaces these words by its own, which name the flag
//! (`cli/advice.rs`).

use crate::names::names;

names! {
    /// A part of a message that says what to do, and for which the program has a flag.
    ///
    /// Messages are formatted with these and do not repeat their words, since the program finds the
    /// words in the message.
    pub enum Advice {
        /// Say what the axes of an array are.
        StateLayout = "say what its axes are",
        /// Make values that are not finite 0.
        ZeroNan = "set data.nan to zero or mask",
        /// Allow more memory.
        RaiseMemoryLimit = "raise the memory limit",
        /// Convert images to the channels of the model.
        ConvertImages = "convert the images to as many channels",
        /// Resize images to the size that the model takes.
        ResizeImages = "resize all images to this size",
        /// Train with fewer images per step, or process fewer at once.
        SmallerBatch = "use a smaller batch",
        /// Split a batch into parts. The number of parts follows.
        Accumulate = "this one with train.accumulate =",
        /// Compute without a GPU.
        UseCpu = "use the CPU",
        /// Compute on a GPU.
        SelectGpu = "select a GPU",
        /// Compute elsewhere.
        OtherDevice = "try another device",
        /// Look up the numbers of the devices.
        ListDevices = "list the devices to see their numbers",
        /// Let csae choose the kernel variants.
        AutoKernels = "use kernels auto",
        /// Read from another layer of the model.
        OtherLayer = "name another layer",
        /// Enlarge maps by transposed convolutions.
        Deconv = "use the decoder deconv",
        /// Train a decoder on larger crops, or with fewer dilated convolutions.
        LargerCrops = "use larger crops, or less context",
        /// Say where the annotations of images are.
        AnnotationFiles = "name a folder of Pascal VOC or YOLO files, or a COCO file",
        /// Say where the label images are.
        LabelFolder = "name the folder of label images",
        /// Say which folder has the normal images.
        NormalFolder = "name the folder of normal images",
        /// Give names to more classes.
        MoreClasses = "name more classes",
        /// Interpret the numbers of label images in another way.
        LabelNumbers = "set instances if labels are numbers of objects, or ignore one number",
        /// Interpret label images as masks.
        Masks = "set instances, which makes every number but 0 the foreground",
        /// Pool features to fewer positions.
        CoarserGrid = "a coarser grid",
        /// Train a model for restoration. The name of the task follows.
        TrainForTask = "train one for the task",
        /// Use a model that does not reconstruct images for what it can do.
        UseFeatures = "use its features",
        /// Train a model of colour images.
        ColorModel = "such as preset paint-3 with model.input = [3, 64, 64]",
        /// Fit a prior to the codes of a model.
        FitPrior = "fit one with the model's training images",
        /// Fit a prior again, in place of the earlier one.
        RefitPrior = "fit the prior again",
        /// Sample from a prior that has classes.
        ClassPrior = "use the prior mixture or sparse",
        /// State how noisy an image is.
        NoiseLevel = "set the noise level",
        /// Train in another folder.
        OtherRunFolder = "name another folder for the run",
        /// Replace a run by a new one.
        OverwriteRun = "overwrite the run in it",
        /// Continue a run that stopped.
        ResumeRun = "continue the run",
        /// Give a benchmark more time.
        MoreSeconds = "allow more seconds",
                /// Start processes so that they find each other.
        LaunchMpi = "start them through MPI",
        /// Compare with a file that benchmarks wrote.
        BenchmarkFile = "name a file of benchmark results as JSON lines",
    }
}
