//! Following a training: the table, the charts and the page in a run folder, `csae watch`, event
//! files for TensorBoard, and the rows that are printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::files::{copy_folder, list, metrics, text};
use crate::support::models::{digits, train_digits};
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

/// A server of `csae watch` that ends with this value.
struct Watching {
    child: Child,
    port: u16,
}

impl Watching {
    fn new(command: Command) -> Self {
        let mut process = command.flags("--port 0").process();
        let mut child =
            process.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let port = url.trim().trim_end_matches('/').rsplit(':').next().unwrap().parse();
        let port = port.unwrap_or_else(|_| panic!("no address: {url:?}"));
        Self { child, port }
    }

    /// Status and body of an answer.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&answer[9..12]).parse().unwrap(), answer[end + 4..].to_vec())
    }

    fn data(&self) -> Value {
        serde_json::from_slice(&self.get("/data.json").1).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

#[test]
fn wrong_places_to_watch_are_refused() {
    let folder = TempFolder::new("follow-wrong");
    let file = folder.write("file", "");
    Command::new("watch --port 0").arg(file).fails(2, &["not a folder"]);
    let empty = folder.create("empty");
    Command::new("watch --port 0").arg(empty).fails(2, &["config.toml"]);
    Command::new("watch").fails(2, &["RUN"]);
}
