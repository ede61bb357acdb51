//! What a watched file holds: `envoy.service.discovery.v3.DiscoveryResponse`.
//!
//! [`clusters`], [`listeners`], [`route_tables`] and [`assignments`] read it whole: one resource that is not valid
//! refuses them all, as in Envoy. Whether resources go together (names, clusters that routes speak of) is for the
//! server to see, one by one.

use std::sync::Arc;

use tidegate_types::json::{JsonPath, Kind, Node, Problem};

use crate::cluster::LoadAssignment;
use crate::error::{ConfigError, Fault};
use crate::loader::{Format, value};
use crate::reader::{Any, Context, Message, Reader};
use crate::tls::Secrets;
use crate::{ClusterConfig, ListenerConfig, RouteConfig};

/// A file's resources of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Response<T> {
    /// `version_info`.
    pub version: String,
    /// In file order.
    pub resources: Vec<Resource<T>>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<T> {
    /// The validated message.
    pub value: T,
    /// The message as it was written, as JSON.
    pub text: Box<str>,
    /// Clusters that it refers to and that must exist, with what is to be said if they do not.
    pub references: Vec<(String, Problem)>,
}

/// Why a file's content is not taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// It is no response at all: an update that failed.
    Unreadable(ConfigError),
    /// Resources in it are wrong: an update that is rejected.
    Invalid(Vec<ConfigError>),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Invalid(errors) => {
                let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

/// The hosts of a cluster: `envoy.config.endpoint.v3.ClusterLoadAssignment`.
pub type Assignment = LoadAssignment;

/// Reads clusters; `file` names the text in errors. Their TLS contexts may name `secrets`, the bootstrap's.
///
/// # Errors
/// See [`Refused`].
pub fn clusters(
    text: &str,
    file: &str,
    format: Format,
    secrets: &Arc<Secrets>,
) -> Result<Response<ClusterConfig>, Refused> {
    read(text, file, format, &Around { secrets: secrets.clone(), ..Around::default() })
}

/// Reads listeners, which may name `secrets` likewise.
///
/// # Errors
/// See [`Refused`].
pub fn listeners(
    text: &str,
    file: &str,
    format: Format,
    secrets: &Arc<Secrets>,
) -> Result<Response<ListenerConfig>, Refused> {
    read(text, file, format, &Around { secrets: secrets.clone(), ..Around::default() })
}

/// Reads route tables. Their clusters need not exist unless `validate_clusters` says so.
///
/// # Errors
/// See [`Refused`].
pub fn route_tables(text: &str, file: &str, format: Format) -> Result<Response<RouteConfig>, Refused> {
    read(text, file, format, &Around { references_may_dangle: true, ..Around::default() })
}

/// Reads hosts of clusters.
///
/// # Errors
/// See [`Refused`].
pub fn assignments(text: &str, file: &str, format: Format) -> Result<Response<Assignment>, Refused> {
    read(text, file, format, &Around::default())
}

fn read<T: Message>(text: &str, file: &str, format: Format, around: &Around) -> Result<Response<T>, Refused> {
    let file: Arc<str> = file.into();
    let error = |fault| ConfigError { file: file.clone(), fault };
    let tree = format.parse(text).map_err(|syntax| Refused::Unreadable(error(Fault::Syntax(syntax))))?;
    if !matches!(tree.kind, Kind::Object(_)) {
        let wrong = Problem {
            expected: Some("a DiscoveryResponse: an object with `resources`".to_owned()),
            ..Problem::new(JsonPath::root(), tree.span, format!("wrong type: {}", tree.describe()))
        };
        return Err(Refused::Unreadable(error(Fault::Value(wrong))));
    }
    let source = Source { text, format, around };
    let invalid = |problems: Vec<Problem>| {
        Refused::Invalid(problems.into_iter().map(|problem| error(Fault::Value(problem))).collect())
    };
    let context = Context::new(&read_file);
    let Envelope { version } = context.read_root(&tree).map_err(invalid)?;
    let (mut resources, mut problems) = (Vec::new(), Vec::new());
    for (place, node) in found(&tree) {
        match source.resource(node, place) {
            Ok(resource) => resources.push(resource),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(Response { version, resources }) } else { Err(invalid(problems)) }
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read `{path}`: {error}"))
}

/// The resources and where they stand.
fn found(tree: &Node) -> impl Iterator<Item = (JsonPath, &Node)> {
    let items = match tree.member("resources").map(|resources| &resources.kind) {
        Some(Kind::Array(items)) => items.as_slice(),
        // One stands for a list of it, as everywhere.
        Some(_) => tree.member("resources").map(std::slice::from_ref).unwrap_or_default(),
        None => &[],
    };
    items.iter().enumerate().map(|(index, node)| (JsonPath::root().field("resources").index(index), node))
}

struct Source<'a> {
    text: &'a str,
    format: Format,
    around: &'a Around,
}

/// What resources are read with that is not in their file.
#[derive(Default)]
struct Around {
    references_may_dangle: bool,
    secrets: Arc<Secrets>,
}

impl Source<'_> {
    fn resource<T: Message>(&self, node: &Node, place: JsonPath) -> Result<Resource<T>, Vec<Problem>> {
        let context = Context::new(&read_file);
        context.references_may_dangle.set(self.around.references_may_dangle);
        context.secrets.replace(self.around.secrets.clone());
        let read = read_resource::<T>(&context, node, place);
        let problems = context.take_problems();
        match read {
            Some((value, inner)) if problems.is_empty() => {
                Ok(Resource { value, text: self.as_written(inner), references: context.take_references() })
            }
            _ => Err(problems),
        }
    }

    fn as_written(&self, node: &Node) -> Box<str> {
        let span = node.span.start as usize..node.span.end as usize;
        match (self.format, self.text.get(span)) {
            (Format::Json, Some(text)) => text.into(),
            _ => value(node).to_string().into(),
        }
    }
}

/// The resource in `node`, which may be wrapped in an `envoy.service.discovery.v3.Resource`.
fn read_resource<'a, T: Message>(
    context: &'a Context<'a>,
    node: &'a Node,
    place: JsonPath,
) -> Option<(T, &'a Node)> {
    let outer = Reader::nowhere(context);
    let any = Any::open(&outer, node, place)?;
    let any = if any.is::<Wrapper>() { any.read_wrapper(&outer)? } else { any };
    if !any.is::<T>() {
        context.report(Problem {
            expected: Some(format!("type.googleapis.com/{}", T::NAME)),
            ..Problem::new(
                any.path.field("@type"),
                any.node.span,
                format!("`{}` is another type", any.type_url),
            )
        });
        return None;
    }
    Some((any.read::<T>(&outer), any.node))
}

/// What is around the resources, which are read one by one.
#[derive(Default)]
struct Envelope {
    version: String,
}

impl Message for Envelope {
    const NAME: &'static str = "envoy.service.discovery.v3.DiscoveryResponse";

    fn read(r: &Reader<'_>) -> Self {
        // Of no meaning in a file; control planes write them all the same.
        r.string("nonce").or_default();
        r.string("type_url").or_default();
        r.bool("canary").or_default();
        r.structure("control_plane").optional();
        r.anys("resources").or_default();
        Self { version: r.string("version_info").or_default() }
    }
}

/// The wrapper's own fields; its `resource` is taken apart by [`Any::read_wrapper`].
pub(crate) struct Wrapper;

impl Message for Wrapper {
    const NAME: &'static str = "envoy.service.discovery.v3.Resource";

    fn read(r: &Reader<'_>) -> Self {
        r.string("name").or_default();
        r.string("version").or_default();
        r.strings("aliases").or_default();
        r.any("resource").optional();
        Self
    }
}

#[cfg(test)]
mod tests;
