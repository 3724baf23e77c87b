//! Static files beside the routes: a page that talks to the gateway comes from the gateway.

use http_body_util::BodyExt;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_staticfile::Static;

use crate::config::FilesConfig;
use crate::reply::{Body, Refusal, not_found};

/// Headers of every file: what a page of the gateway's needs, and what others could do with it.
const HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// Directories by the path that they are under, the longest first.
pub struct Files(Vec<(String, Static)>);

impl Files {
    pub fn new(config: &[FilesConfig]) -> Self {
        let mut files: Vec<_> = config
            .iter()
            .map(|files| {
                let path = files.path.get_ref().trim_end_matches('/').to_owned();
                (path, Static::new(files.directory.get_ref()))
            })
            .collect();
        files.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self(files)
    }

    /// The file that the request asks for.
    pub async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path();
        let found = self.0.iter().find_map(|(prefix, files)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (files.clone(), prefix.clone(), rest.to_owned()))
        });
        let Some((files, prefix, rest)) = found else {
            return Err(not_found());
        };
        let (mut parts, _) = request.into_parts();
        parts.uri = rest.parse().unwrap_or_default();
        let response = match files.serve(Request::from_parts(parts, ())).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "a file cannot be served");
                return Err(not_found());
            }
        };
        if response.status() == StatusCode::NOT_FOUND {
            return Err(not_found());
        }
        // A directory's redirect knows nothing of the path that the files are under.
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| HeaderValue::try_from(format!("{prefix}{location}")).ok());
        let mut response = response.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
        if let Some(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}
