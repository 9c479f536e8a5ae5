//! Following a training: the table, the charts and the page in a run folder, `csae watch`, event
//! files for TensorBoard, and the rows that are printed.

#[cfg(unix)]
use crate::support::command::{interrupt, wait};
use crate::support::files::{copy_folder, list, metrics, text};
use crate::support::models::{digits, train_digits};
use crate::support::watching::Watching;
use crate::support::{Command, TempFolder, bytes, is_file};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

#[test]
fn a_training_leaves_a_table_charts_and_a_page() {
    let csv = text(format!("{}/metrics.csv", digits()));
    let mut lines = csv.lines();
    let heads: Vec<&str> = lines.next().unwrap().split(',').collect();
    for head in ["step", "epoch", "lr", "train_reconstruction", "train_l0", "validation_psnr"] {
        assert!(heads.contains(&head), "{head}: {heads:?}");
    }
    assert!(!csv.contains("images_per_s"), "it depends on the clock");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let steps: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(steps, ["4", "8", "12"]);
    assert!(rows.iter().all(|row| row.len() == heads.len()));
    // The table has the numbers of the log.
    let log = metrics(digits());
    let validation = log.iter().rfind(|line| line["kind"] == "validation").unwrap();
    let at = heads.iter().position(|head| *head == "validation_psnr").unwrap();
    let psnr: f64 = rows[2][at].parse().unwrap();
    assert_eq!(Some(psnr), validation["psnr"].as_f64());
    assert!(bytes(format!("{}/train.png", digits())).starts_with(PNG));
    let page = text(format!("{}/index.html", digits()));
    assert!(page.contains("data:image/png;base64,") && page.contains("\"state\":\"finished\""));
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"));
}

#[test]
fn every_validation_is_a_row_that_fits() {
    let folder = TempFolder::new("follow-rows");
    let train = Command::train("digits").out(folder.path("run")).steps(12).batch(16).on_cpu();
    let train = train.set("model.layers.code.units=24").set("train.validate_every=0.04");
    let messages = train.messages();
    let lines: Vec<&str> = messages.lines().collect();
    let head = lines.iter().position(|line| line.contains("epoch") && line.contains("PSNR dB"));
    let head = head.unwrap_or_else(|| panic!("{messages}"));
    for word in ["loss", "L0", "dead", "rate", "memory"] {
        assert!(lines[head].contains(word), "{word}: {messages}");
    }
    let rows: Vec<&&str> = lines.iter().filter(|line| line.contains("MiB")).collect();
    assert!(rows.len() >= 2, "{messages}");
    assert!(rows.iter().any(|row| row.ends_with("best")), "{messages}");
    // The same on standard error of `-q`: nothing.
    let quiet = train.force().quiet().messages();
    assert!(!quiet.contains("PSNR dB"), "{quiet}");
}

#[test]
fn a_run_is_watched_before_while_and_after_it_trains() {
    let folder = TempFolder::new("follow-watch");
    let run = folder.path("run");
    let watching = Watching::new(Command::new("watch").arg(&run).arg(digits()));
    let states = || {
        let data = watching.data();
        ["0", "1"].map(|i| data.pointer(&format!("/runs/{i}/state")).unwrap().clone())
    };
    assert_eq!(states(), ["waiting", "finished"]);
    let train = Command::train("digits").out(&run).steps(1_000_000).batch(16).on_cpu().quiet();
    let mut child = train.set("model.layers.code.units=24").set("train.log_every=4").spawn();
    let begin = std::time::Instant::now();
    while states()[0] != "running" {
        assert!(begin.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before = watching.data()["runs"][0]["step"].as_u64().unwrap();
    while watching.data()["runs"][0]["step"].as_u64().unwrap() <= before {
        assert!(begin.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(states()[0], "waiting");
    let data = watching.data();
    let picture = data["runs"][1]["pictures"][0]["src"].as_str().unwrap();
    let (status, png) = watching.get(&format!("/{picture}"));
    assert!(status == 200 && png.starts_with(PNG));
    assert_eq!(watching.get("/picture/1/../../model.safetensors").0, 404);
    assert!(!data["differences"].as_array().unwrap().is_empty());
    std::fs::remove_dir_all(&run).unwrap();
    assert_eq!(states(), ["deleted", "finished"]);
}

/// A training of the digits that ends when it is asked to, with a validation every five steps.
#[cfg(unix)]
fn endless(run: &str) -> Command {
    let train = Command::train("digits").out(run).steps(1_000_000).batch(16).on_cpu().quiet();
    let train = train.set("model.layers.code.units=24").set("train.log_every=5");
    train.set("train.validate_every=0.05")
}

/// Waits until `reached` is true while a training goes on.
#[cfg(unix)]
fn wait_for(child: &mut std::process::Child, reached: &dyn Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !reached() {
        assert!(begin.elapsed().as_secs() < 120 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
#[cfg(unix)]
fn a_running_training_has_pictures_and_a_stopped_one_has_a_page() {
    let folder = TempFolder::new("follow-pictures");
    let run = folder.path("run");
    let watching = Watching::new(Command::new("watch").arg(&run));
    let mut child = endless(&run).spawn();
    // Pictures of a running training.
    let pictures = || {
        let data = watching.data();
        let running = data["runs"][0]["state"] == "running";
        let pictures = data["runs"][0]["pictures"].as_array().unwrap();
        let files: Vec<String> =
            pictures.iter().map(|item| item["file"].as_str().unwrap().to_owned()).collect();
        (running, files)
    };
    wait_for(&mut child, &|| pictures().1.len() == 3);
    assert!(pictures().0);
    assert_eq!(pictures().1, ["reconstructions.png", "atoms.png", "filters.png"]);
    assert!(!is_file(&run, "index.html") && !is_file(&run, "model.safetensors"));
    let status = interrupt(&child);
    assert_eq!(wait(child).status, Some(status));
    let page = text(format!("{run}/index.html"));
    assert!(page.contains("\"state\":\"stopped\"") && page.contains("data:image/png;base64,"));
    // A resumed run has a page that says so from its start on.
    let steps = metrics(&run).last().unwrap()["step"].as_u64().unwrap() as usize;
    let mut child = Command::resume(&run).steps(1 << 30).on_cpu().quiet().spawn();
    let state = |state: &str| text(format!("{run}/index.html")).contains(state);
    wait_for(&mut child, &|| state("\"state\":\"running\""));
    assert!(!state("\"state\":\"stopped\""));
    let status = interrupt(&child);
    assert_eq!(wait(child).status, Some(status));
    assert!(state("\"state\":\"stopped\""));
    // The page of the finished run replaces it.
    let done = metrics(&run).last().unwrap()["step"].as_u64().unwrap() as usize;
    assert!(done >= steps);
    Command::resume(&run).steps(done + 100).on_cpu().quiet().succeed();
    assert!(text(format!("{run}/index.html")).contains("\"state\":\"finished\""));
}

#[test]
#[cfg(unix)]
fn a_run_that_stops_after_a_validation_has_its_pictures() {
    let folder = TempFolder::new("follow-stopped");
    let run = folder.path("run");
    let mut child = endless(&run).spawn();
    wait_for(&mut child, &|| is_file(&run, "best.safetensors"));
    let status = interrupt(&child);
    assert_eq!(wait(child).status, Some(status));
    for file in ["reconstructions.png", "atoms.png", "filters.png"] {
        assert!(bytes(format!("{run}/{file}")).starts_with(PNG), "{file}");
    }
    let page = text(format!("{run}/index.html"));
    assert_eq!(page.matches("\"src\":\"data:image/png;base64,").count(), 3);
}

#[test]
fn wrong_places_to_watch_are_refused() {
    let folder = TempFolder::new("follow-wrong");
    let file = folder.write("file", "");
    Command::new("watch --port 0").arg(file).fails(2, &["not a folder"]);
    let empty = folder.create("empty");
    Command::new("watch --port 0").arg(empty).fails(2, &["config.toml"]);
    Command::new("watch").fails(2, &["RUN"]);
}

/// A field of a message of protocol buffers: its number, and a number or bytes.
enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let fixed = match key & 7 {
            0 => {
                found.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(fixed);
        found.push((key >> 3, Field::Bytes(value)));
        bytes = rest;
    }
    found
}

fn bytes_of(message: &[u8], number: u64) -> Vec<&[u8]> {
    let all = fields(message).into_iter().filter(|(at, _)| *at == number);
    all.map(|(_, field)| match field {
        Field::Bytes(bytes) => bytes,
        Field::Number(number) => panic!("{number} is not bytes"),
    })
    .collect()
}

fn number_of(message: &[u8], number: u64) -> Option<u64> {
    fields(message).into_iter().find_map(|(at, field)| match field {
        Field::Number(value) if at == number => Some(value),
        _ => None,
    })
}

/// CRC-32C bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The messages of an event file. `None` if a checksum or a length is wrong.
fn events(mut file: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !file.is_empty() {
        let (head, rest) = file.split_at_checked(12)?;
        if masked(&head[..8]) != head[8..] {
            return None;
        }
        let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
        let (data, rest) = rest.split_at_checked(length)?;
        let (sum, rest) = rest.split_at_checked(4)?;
        if masked(data) != sum {
            return None;
        }
        found.push(data);
        file = rest;
    }
    Some(found)
}

/// The scalars (tag, step, value) of event files, in order.
fn scalars(messages: &[&[u8]]) -> Vec<(String, u64, f32)> {
    let mut found = Vec::new();
    for message in messages {
        let step = number_of(message, 2).unwrap_or(0);
        for value in bytes_of(message, 5).iter().flat_map(|summary| bytes_of(summary, 1)) {
            let tag = String::from_utf8(bytes_of(value, 1)[0].to_vec()).unwrap();
            for number in bytes_of(value, 2) {
                found.push((tag.clone(), step, f32::from_le_bytes(number.try_into().unwrap())));
            }
        }
    }
    found
}

#[test]
fn event_files_have_the_log_and_the_pictures() {
    let folder = TempFolder::new("follow-events");
    let run = folder.path("run");
    train_digits(&run).arg("--tensorboard").succeed();
    let [path] = &list(format!("{run}/tensorboard"))[..] else { panic!("one event file") };
    let file = bytes(path);
    let messages = events(&file).expect("sound checksums");
    assert_eq!(bytes_of(messages[0], 3), [b"brain.Event:2"]);
    let found = scalars(&messages);
    for line in metrics(&run) {
        let (group, name) = match line["kind"].as_str().unwrap() {
            "train" => ("training", "reconstruction"),
            _ => ("validation", "sum_squares"),
        };
        let (step, value) = (line["step"].as_u64().unwrap(), line[name].as_f64().unwrap() as f32);
        assert!(found.contains(&(format!("{group}/{name}"), step, value)), "{line}: {found:?}");
    }
    let values: Vec<&[u8]> = messages
        .iter()
        .flat_map(|message| bytes_of(message, 5))
        .flat_map(|summary| bytes_of(summary, 1))
        .collect();
    let is_picture = |value: &&&[u8]| bytes_of(value, 1)[0] == b"pictures/reconstructions";
    let picture = bytes_of(values.iter().find(is_picture).expect("a picture"), 4)[0];
    assert_eq!(bytes_of(picture, 4)[0], bytes(format!("{run}/reconstructions.png")));
    // Every changed byte is found, so the checksums are compared.
    for at in [0, 9, 20, file.len() - 1] {
        let mut other = file.clone();
        other[at] ^= 1;
        assert!(events(&other).is_none(), "byte {at}");
    }
    // Without the flag there are no event files.
    assert!(!std::path::Path::new(&format!("{}/tensorboard", digits())).exists());
}

#[test]
fn a_resumed_run_continues_its_event_files() {
    let folder = TempFolder::new("follow-events-resumed");
    let run = folder.path("run");
    train_digits(&run).arg("--tensorboard").succeed();
    Command::resume(&run).steps(16).on_cpu().quiet().succeed();
    let files = list(format!("{run}/tensorboard"));
    assert_eq!(files.len(), 2);
    let second = bytes(&files[1]);
    let messages = events(&second).unwrap();
    // A start of a session, which makes readers forget what follows the checkpoint.
    assert_eq!(number_of(bytes_of(messages[1], 7)[0], 1), Some(1));
    assert_eq!(number_of(messages[1], 2), Some(13));
    let steps: Vec<u64> = scalars(&messages).into_iter().map(|(_, step, _)| step).collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| *step == 16), "{steps:?}");
    // Overwriting the run removes the files of the first one.
    train_digits(&run).force().succeed();
    assert!(list(format!("{run}/tensorboard")).is_empty());
}

#[test]
fn the_page_of_a_run_with_a_hostile_name_has_no_element_of_it() {
    let folder = TempFolder::new("follow-hostile");
    let run = folder.path("<img src=x>");
    copy_folder(digits(), &run);
    let watching = Watching::new(Command::new("watch").arg(&run));
    let page = String::from_utf8(watching.get("/").1).unwrap();
    assert!(page.contains("&lt;img") && !page.contains("<img"), "{page}");
    let out = folder.path("out");
    Command::new("compare").arg(&run).arg(digits()).out(&out).succeed();
    assert!(is_file(&out, "index.html") && !text(format!("{out}/index.html")).contains("<img"));
}
