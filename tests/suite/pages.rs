//! Every kind of HTML page in a browser: it writes no error to the console, fits screens of 1280
//! and 400 pixels, and follows the theme. See [`crate::support::chromium`].

use std::path::Path;

use crate::support::chromium::Browser;
use crate::support::images::BRICK;
use crate::support::models::{digits, train_digits};
use crate::support::watching::Watching;
use crate::support::{Command, TempFolder, text};

/// A page that its script has drawn.
const DRAWN: &str = "document.querySelectorAll('.chart svg').length > 0";
/// A page without a script that draws it.
const STILL: &str = "document.querySelectorAll('h2, img').length > 0";

/// The address of a file.
fn address(path: &str) -> String {
    format!("file://{}", Path::new(path).canonicalize().unwrap().display())
}

#[track_caller]
fn assert_sound(browser: &mut Browser, name: &str, url: &str, ready: &str) {
    let found = browser.faults(name, url, ready);
    assert!(found.is_empty(), "{name}: {found:#?}");
}

#[test]
fn pages_of_runs_fit_and_have_no_errors() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("pages-runs");
    let [other, compared, grid] = ["a run with another name", "compared", "grid"];
    let [other, compared, grid] = [other, compared, grid].map(|name| folder.path(name));
    train_digits(&other).set("optimizer.lr=0.01").succeed();
    Command::new("compare").arg(digits()).arg(&other).out(&compared).succeed();
    let train = Command::new("grid digits --preset w1 --steps 3").set("optimizer.lr=0.001,0.01");
    train.out(&grid).on_cpu().quiet().succeed();
    for (name, folder) in [("run", digits()), ("compare", &compared), ("grid", &grid)] {
        let url = address(&format!("{folder}/index.html"));
        assert_sound(&mut browser, name, &url, DRAWN);
    }
}

#[test]
fn the_page_of_csae_watch_fits_and_has_no_errors() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("pages-watch");
    let waiting = folder.path("not yet");
    let alone = Watching::new(Command::new("watch").arg(digits()));
    assert_sound(&mut browser, "watch", &format!("http://127.0.0.1:{}/", alone.port), DRAWN);
    let several = Watching::new(Command::new("watch").arg(digits()).arg(waiting));
    let url = format!("http://127.0.0.1:{}/", several.port);
    assert_sound(&mut browser, "watch-several", &url, DRAWN);
    // A run that has begun and not logged anything.
    let config = text(format!("{}/config.toml", digits()));
    folder.write("begun/config.toml", config);
    let begun = Watching::new(Command::new("watch").arg(folder.path("begun")));
    let (url, ready) =
        (format!("http://127.0.0.1:{}/", begun.port), "document.querySelector('nav')");
    assert_sound(&mut browser, "watch-begun", &url, ready);
}

#[test]
fn the_page_of_an_inspection_fits_and_has_no_errors() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("pages-inspect");
    let out = folder.path("out");
    Command::inspect(digits()).flags("--data digits --images 200").out(&out).on_cpu().succeed();
    let page = format!("{out}/inspect.html");
    assert_sound(&mut browser, "inspect", &address(&page), STILL);
    // The pictures of samples name their files.
    assert!(text(page).contains("title=\"0"), "a digit is named after its number");
}

#[test]
fn galleries_fit_and_have_no_errors() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("pages-galleries");
    let gray = |name: &str, value: u8| {
        let path = folder.path(name);
        image::GrayImage::from_pixel(8, 8, image::Luma([value])).save(&path).unwrap();
        path
    };
    let ends = [gray("dark.png", 20), gray("light.png", 220)];
    let between = Command::new("generate --frames 12").arg(digits()).arg("--interpolate");
    between.args(ends).out(folder.path("generate")).on_cpu().succeed();
    let small = folder.path("small.png");
    image::open(BRICK).unwrap().crop_imm(0, 0, 48, 48).to_rgb8().save(&small).unwrap();
    let texture = Command::new("texture --tile --size 64 -m paint-1").arg(&small);
    texture.out(folder.path("texture")).on_cpu().quiet().succeed();
    let style = Command::new("stylize --size 64 -m paint-1").option("--content", &small);
    style.option("--style", &small).out(folder.path("styled")).on_cpu().quiet().succeed();
    for name in ["generate", "texture", "styled"] {
        let url = address(&folder.path(&format!("{name}/gallery.html")));
        assert_sound(&mut browser, name, &url, STILL);
    }
}

/// Pages that have a fault, which must be found.
#[test]
fn faults_of_pages_are_found() {
    let Some(mut browser) = Browser::open() else { return };
    let folder = TempFolder::new("pages-faults");
    let sound = "<meta charset=utf-8><style>:root{color-scheme:light dark}\
                 body{background:#fff}@media(prefers-color-scheme:dark){body{background:#111}}\
                 </style><h2 id=a>A</h2>";
    let mut faults = |html: &str| {
        let page = folder.write("page.html", format!("<!doctype html>{html}"));
        browser.faults("fault", &address(&page), STILL)
    };
    assert_eq!(faults(sound), [""; 0]);
    for (html, word, count) in [
        ("<script>console.error('wrong')</script>", "wrong", 4),
        ("<script>setTimeout(() => nothing(), 0)</script>", "nothing is not defined", 4),
        ("<img src=\"missing.png\">", "ERR_FILE_NOT_FOUND", 4),
        ("<div style=\"width:600px\">wide</div>", "overflow: 6", 2),
        ("<svg viewBox=\"0 0 400 9\" width=200><text font-size=9>x</text></svg>", "small text", 4),
        ("<nav><a href=\"#b\">B</a></nav>", "#b leads nowhere", 4),
        ("<style>body{background:#fff!important}</style>", "theme: ", 2),
        ("<img src=\"data:image/png;base64,AAAA\" alt=broken>", "image: broken", 4),
    ] {
        let found = faults(&format!("{sound}{html}"));
        let found: Vec<&String> = found.iter().filter(|fault| fault.contains(word)).collect();
        assert_eq!(found.len(), count, "{html}: {found:?}");
    }
    browser.looks = 3;
    let incomplete = browser.faults("fault", "about:blank", "false");
    assert!(incomplete.iter().any(|fault| fault.contains("incomplete")), "{incomplete:?}");
}
