//! The page at `/` of the admin port: the path of the rows with its numbers, and the windows of a site as charts.
//!
//! ```text
//! /                the page; its parts under /page/, all of them in the binary
//! /api/overview    the path, from this process's own metrics
//! /api/sites       who has windows, from the lake
//! /api/windows     the windows of one site and pipeline, from the lake
//! ```
//!
//! It only reads, and fetches nothing from elsewhere. `guard` keeps foreign pages out, `lake` bounds what a look costs.

mod assets;
mod guard;
mod lake;
mod numbers;
mod overview;
mod pipeline_view;
mod windows;

use std::collections::HashMap;

use airan_model::time::Clock;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::admin::Admin;

pub use guard::{Guard, guarded};
pub use lake::LakeView;
pub use overview::About;
pub use pipeline_view::PipelineView;

/// Hours that are shown where nobody says how many.
const HOURS: u32 = 3;
/// Hours that can be asked for: beyond it `airan query` is the tool.
const HOURS_MAX: u32 = 168;

/// Why there is no answer. Each says what the reader can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Ask for something else.
    #[error("{0}")]
    Asked(String),
    /// Ask another process, or for another thing: it is not here.
    #[error("{0}")]
    NotHere(String),
    /// Ask again soon.
    #[error("other questions to the lake are being answered; ask again in a second")]
    Busy,
    /// Ask again later, or for less.
    #[error("{0}")]
    NotNow(String),
}

impl Trouble {
    fn status(&self) -> StatusCode {
        match self {
            Trouble::Asked(_) => StatusCode::BAD_REQUEST,
            Trouble::NotHere(_) => StatusCode::NOT_FOUND,
            Trouble::Busy => StatusCode::TOO_MANY_REQUESTS,
            Trouble::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut answer = (status, json(&serde_json::json!({"error": self.to_string()}))).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        answer
    }
}

/// The page and what it asks for.
pub fn routes() -> Router<Admin> {
    assets::routes()
        .route("/api/overview", get(overview))
        .route("/api/sites", get(sites))
        .route("/api/windows", get(windows))
}

async fn overview(State(admin): State<Admin>) -> Response {
    json(&overview::of(&admin, Clock::system().now()).await)
}

async fn sites(State(admin): State<Admin>, Query(asked): Query<HashMap<String, String>>) -> Result<Response, Trouble> {
    let asked = Asked::of(&asked, &["hours"])?;
    Ok(json(&admin.lake_view()?.sites(asked.hours()?).await?))
}

async fn windows(
    State(admin): State<Admin>,
    Query(asked): Query<HashMap<String, String>>,
) -> Result<Response, Trouble> {
    let asked = Asked::of(&asked, &["site", "pipeline", "hours"])?;
    let (site, pipeline) = (asked.needed("site")?, asked.needed("pipeline")?);
    Ok(json(&admin.lake_view()?.windows(site, pipeline, asked.hours()?).await?))
}

/// The parameters of a question.
struct Asked<'a>(&'a HashMap<String, String>);

impl<'a> Asked<'a> {
    fn of(given: &'a HashMap<String, String>, known: &[&str]) -> Result<Asked<'a>, Trouble> {
        match given.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Trouble::Asked(format!("no parameter `{name}`: there are {}", known.join(", ")))),
            None => Ok(Asked(given)),
        }
    }

    fn needed(&self, name: &str) -> Result<&'a str, Trouble> {
        let value = self.0.get(name).map(String::as_str).filter(|value| !value.is_empty());
        value.ok_or_else(|| Trouble::Asked(format!("parameter `{name}` is missing")))
    }

    fn hours(&self) -> Result<u32, Trouble> {
        let Some(text) = self.0.get("hours") else { return Ok(HOURS) };
        let hours = text.parse().ok().filter(|hours| (1..=HOURS_MAX).contains(hours));
        hours.ok_or_else(|| Trouble::Asked(format!("hours is {text}: a whole number from 1 to {HOURS_MAX} is meant")))
    }
}

fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: parameters that are unknown, missing, no number, zero, or beyond what is answered.
    /// Guarantees: each is refused by name; the bounds themselves are taken.
    #[test]
    fn parameters_out_of_bounds_are_refused_by_name() {
        let given = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let hours = |text: &str| Asked(&given(&[("hours", text)])).hours();
        assert_eq!((hours("1"), hours("168"), Asked(&given(&[])).hours()), (Ok(1), Ok(168), Ok(3)));
        for text in ["0", "169", "-1", "1.5", "", "all"] {
            assert!(matches!(hours(text), Err(Trouble::Asked(told)) if told.contains("from 1 to 168")), "{text}");
        }
        let unknown = given(&[("site", "a"), ("sql", "SELECT 1")]);
        let told = Asked::of(&unknown, &["site"]).err().unwrap();
        assert_eq!((told.status(), told.to_string().contains("`sql`")), (StatusCode::BAD_REQUEST, true));
        let none = given(&[("site", "")]);
        assert!(Asked(&none).needed("site").is_err() && Asked(&none).needed("pipeline").is_err());
    }
}
