use std::io::{Read, Write};

use serde_json::Value;

use super::*;
use crate::testing::Folder;

/// Sends a request to a server of runs and returns the answer's status and body.
fn ask(watch: &Watch, head: &str) -> (u16, Vec<u8>) {
    let port = watch.port().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| watch.serve(&|| done.load(Ordering::SeqCst)));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        done.store(true, Ordering::SeqCst);
        read.unwrap();
        let split = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[split + 4..].to_vec())
    })
}

fn get(watch: &Watch, path: &str) -> (u16, Vec<u8>) {
    ask(watch, &format!("GET {path} HTTP/1.1\r\nHost: localhost:1\r\n\r\n"))
}

const PNG: [u8; 9] = *b"\x89PNG\r\n\x1a\n.";

fn run(folder: &Folder, name: &str, lines: usize) {
    let config = crate::spec::preset_text("w1").unwrap();
    folder.write(format!("{name}/config.toml"), config.as_bytes());
    let lines: String = (1..=lines)
        .map(|step| format!("{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":0.5}}\n"))
        .collect();
    folder.write(format!("{name}/metrics.jsonl"), lines.as_bytes());
    folder.write(format!("{name}/atoms.png"), &PNG);
    folder.write(format!("{name}/secret.png"), &PNG);
}

#[test]
fn the_page_its_data_and_its_pictures_are_served_and_nothing_else() {
    let folder = Folder::new("watch");
    run(&folder, "<img src=x>", 3);
    let path = folder.path.join("<img src=x>");
    let watch = Watch::new(std::slice::from_ref(&path), 0).unwrap();
    let (status, page) = get(&watch, "/");
    let page = String::from_utf8(page).unwrap();
    assert!(
        status == 200 && page.contains("&lt;img src=x&gt;") && !page.contains("<img"),
        "{page}"
    );
    assert_eq!(get(&watch, "/script.js").0, 200);
    assert_eq!(get(&watch, "/style.css").0, 200);
    let (status, data) = get(&watch, "/data.json?have=");
    assert_eq!(status, 200);
    let data: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(data["runs"][0]["name"], "<img src=x>");
    assert_eq!(data["runs"][0]["train"]["loss"].as_array().unwrap().len(), 3);
    let picture = data["runs"][0]["pictures"][0]["src"].as_str().unwrap();
    assert_eq!(get(&watch, &format!("/{picture}")), (200, PNG.to_vec()));
    for path in [
        "/picture/0/secret.png",
        "/picture/1/atoms.png",
        "/picture/-1/atoms.png",
        "/picture/0/../atoms.png",
        "/picture/0/%61toms.png",
        "/picture/0//etc/passwd",
        "/../../etc/passwd",
        "/metrics.jsonl",
        "/picture/0/config.toml",
        "//data.json",
    ] {
        assert_eq!(get(&watch, path).0, 404, "{path}");
    }
}

#[test]
fn data_are_sent_again_only_after_a_change() {
    let folder = Folder::new("watch-version");
    run(&folder, "run", 3);
    let path = folder.path.join("run");
    let watch = Watch::new(std::slice::from_ref(&path), 0).unwrap();
    let version = |data: &[u8]| {
        serde_json::from_slice::<Value>(data).unwrap()["version"].as_str().unwrap().to_owned()
    };
    let first = version(&get(&watch, "/data.json").1);
    let again = format!("/data.json?have={first}");
    assert_eq!(get(&watch, &again), (204, Vec::new()));
    run(&folder, "run", 4);
    let (status, data) = get(&watch, &again);
    assert!(status == 200 && version(&data) != first);
    std::fs::remove_dir_all(&path).unwrap();
    let (status, data) = get(&watch, "/data.json");
    let data: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!((status, &data["runs"][0]["state"]), (200, &"deleted".into()));
}

#[test]
fn runs_that_begin_in_a_folder_of_runs_are_added() {
    let folder = Folder::new("watch-runs");
    let watch = Watch::new(&[folder.path.join("runs")], 0).unwrap();
    let names = || {
        let data: Value = serde_json::from_slice(&get(&watch, "/data.json").1).unwrap();
        let runs = data["runs"].as_array().unwrap().iter();
        runs.map(|run| run["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["runs"], "waiting");
    run(&folder, "runs/a", 1);
    assert_eq!(names(), ["a"]);
    run(&folder, "runs/b", 1);
    assert_eq!(names(), ["a", "b"]);
    folder.write("file", b"");
    assert!(Watch::new(&[folder.path.join("file")], 0).is_err());
}

#[test]
fn other_methods_and_other_hosts_are_refused() {
    let folder = Folder::new("watch-refuse");
    let watch = Watch::new(&[folder.path.join("run")], 0).unwrap();
    for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(ask(&watch, &head).0, 405, "{method}");
    }
    for host in ["Host: evil.example\r\n", "", "Host: localhost\r\nHost: evil.example\r\n"] {
        let head = format!("GET /data.json HTTP/1.1\r\n{host}\r\n");
        assert_eq!(ask(&watch, &head).0, 421, "{host}");
    }
    assert_eq!(ask(&watch, "nonsense\r\n\r\n").0, 400);
    assert_eq!(get(&watch, "/").0, 200, "a control: the server answers");
}

#[test]
fn a_taken_port_is_an_error_with_advice() {
    let folder = Folder::new("watch-port");
    let first = Watch::new(&[folder.path.join("run")], 0).unwrap();
    let error =
        Watch::new(&[folder.path.join("run")], first.port().unwrap()).unwrap_err().to_string();
    assert!(error.contains("choose another port"), "{error}");
}

#[test]
fn names_are_as_short_as_they_can_be() {
    let of = |paths: &[&str]| {
        let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
        names(&paths)
    };
    assert_eq!(of(&["runs/001"]), ["001"]);
    assert_eq!(of(&["a/001", "b/001", "b/002"]), ["a/001", "b/001", "b/002"]);
    assert_eq!(of(&["/a", "/a"]), ["a", "a"]);
    assert_eq!(of(&[]), [""; 0]);
}
