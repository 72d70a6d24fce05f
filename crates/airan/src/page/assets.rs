//! The files of the page, as built in.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::admin::Admin;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Where each file is served, what it is, its text.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("assets/index.html")),
    ("/page/page.css", CSS, include_str!("assets/page.css")),
    ("/page/main.js", SCRIPT, include_str!("assets/main.js")),
    ("/page/ask.js", SCRIPT, include_str!("assets/ask.js")),
    ("/page/chart.js", SCRIPT, include_str!("assets/chart.js")),
    ("/page/make.js", SCRIPT, include_str!("assets/make.js")),
    ("/page/path.js", SCRIPT, include_str!("assets/path.js")),
    ("/page/series.js", SCRIPT, include_str!("assets/series.js")),
    ("/page/site.js", SCRIPT, include_str!("assets/site.js")),
    ("/page/write.js", SCRIPT, include_str!("assets/write.js")),
    ("/page/icon.svg", SVG, include_str!("assets/icon.svg")),
];

/// A route for each file.
pub(super) fn routes() -> Router<Admin> {
    let add = |router: Router<Admin>, (path, kind, text): &(&'static str, &'static str, &'static str)| {
        let (kind, text) = (*kind, *text);
        router.route(path, get(move || std::future::ready(file(kind, text))))
    };
    FILES.iter().fold(Router::new(), add)
}

/// A newer binary serves newer files under the same names, so browsers ask each time.
fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the page names no address outside this process, runs nothing inline, and never turns text into markup;
    /// what its scripts import is served.
    #[test]
    fn the_page_is_whole_and_fetches_nothing_from_elsewhere() {
        for (path, kind, text) in FILES {
            // The names of XML's namespaces look like addresses and are never fetched.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for bad in
                ["http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(bad), "{path}: {bad}");
            }
            if *kind == HTML {
                let lower = text.to_lowercase();
                let is_handler = |word: &str| word.starts_with("on") && word.contains('=');
                assert!(!lower.split_whitespace().any(is_handler), "{path}");
                assert!(!lower.contains("style=") && !lower.contains("<style"), "{path}");
                assert_eq!(
                    lower.matches("<script").count(),
                    lower.matches("<script type=\"module\" src=\"/page/").count()
                );
            }
            for import in text.lines().filter(|line| line.starts_with("import ")) {
                let name = import.split('"').nth(1).unwrap_or_else(|| panic!("{path}: {import}"));
                let served = name.replacen("./", "/page/", 1);
                assert!(FILES.iter().any(|(path, _, _)| *path == served), "{path}: {import}");
            }
        }
    }
}
