//! The flags that do what the library's messages advise.

use crate::advice::Advice;

/// The program's words for advice of the library: they name the flag or the command.
const fn with_flag(advice: Advice) -> &'static str {
    match advice {
        Advice::StateLayout => "say what its axes are with --layout",
        Advice::ZeroNan => "use --nan zero or --nan mask",
        Advice::RaiseMemoryLimit => "raise --max-memory",
        Advice::ConvertImages => "add --resize to convert the images",
        Advice::ResizeImages => "add --resize to resize all images",
        Advice::SmallerBatch => "use a smaller --batch",
        Advice::Accumulate => "this one by --accumulate",
        Advice::UseCpu => "use --device cpu",
        Advice::SelectGpu => "select a GPU with --device",
        Advice::OtherDevice => "try another --device",
        Advice::ListDevices => "run `csae devices` to list them",
        Advice::AutoKernels => "use --kernels auto",
        Advice::OtherLayer => "name another layer by --layer",
        Advice::Deconv => "use --decoder deconv",
        Advice::LargerCrops => "use a larger --crop, or a smaller --context",
        Advice::AnnotationFiles => {
            "name a folder of Pascal VOC or YOLO files with --annotations, or a COCO file with \
             --coco"
        }
        Advice::LabelFolder => "name their folder with --labels",
        Advice::NormalFolder => "name it with --normal",
        Advice::MoreClasses => "name more with --classes",
        Advice::LabelNumbers => {
            "use --instances if labels are numbers of objects, or --ignore to leave one number out"
        }
        Advice::Masks => "use --instances, which makes every number but 0 the foreground",
        Advice::CoarserGrid => "a coarser --grid",
        Advice::TrainForTask => "train one by csae train DATA --task",
        Advice::UseFeatures => "use `csae eval` or `csae features` with it",
        Advice::ColorModel => {
            "for example from `csae train photos --preset paint-3 --set model.input=[3,64,64]`"
        }
        Advice::FitPrior => {
            "fit one with the model's training images: `csae generate MODEL --fit DATA`"
        }
        Advice::RefitPrior => "fit it again by --fit DATA --force",
        Advice::ClassPrior => "use --prior mixture or sparse",
        Advice::NoiseLevel => "set it by --sigma",
        Advice::OtherRunFolder => "choose another folder with --out",
        Advice::OverwriteRun => "add --force to overwrite it",
        Advice::ResumeRun => "continue it with `csae resume`",
        Advice::MoreSeconds => "increase --seconds to allow it",
        Advice::LaunchMpi => {
            "use srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list shows what there is), or --ntasks=1"
        }
        Advice::BenchmarkFile => "--compare expects the output of `csae bench --json > FILE`",
    }
}

/// A message of the library as the program prints it: with flags and commands where the library
/// advises something that they do.
pub fn with_flags(message: &str) -> String {
    Advice::ALL.iter().fold(message.to_owned(), |message, advice| {
        message.replace(advice.name(), with_flag(*advice))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_the_program_names_flags() {
        for advice in Advice::ALL {
            let (library, program) = (advice.name(), with_flag(*advice));
            assert!(!library.contains("--") && !library.contains("csae "), "{library}");
            let has_command =
                matches!(advice, Advice::ListDevices | Advice::UseFeatures | Advice::ResumeRun);
            assert!(program.contains(if has_command { "`csae " } else { "--" }), "{program}");
            // No replacement changes another one.
            assert_eq!(with_flags(&format!("a; {library}, b")), format!("a; {program}, b"));
        }
        assert_eq!(with_flags("a.png: is empty"), "a.png: is empty");
    }

    /// Text that repeats the words of advice would be replaced too.
    #[test]
    fn no_other_text_has_the_words_of_advice() {
        fn visit(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    visit(&path, found);
                } else if !path.ends_with("advice.rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    let lines = source.lines().map(|line| line.trim().trim_end_matches('\\'));
                    let joined: String = lines.collect();
                    let words = Advice::ALL.iter().map(|advice| advice.name());
                    found.extend(
                        words
                            .filter(|words| joined.contains(words))
                            .map(|words| format!("{}: {words}", path.display())),
                    );
                }
            }
        }
        let mut found = Vec::new();
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}
