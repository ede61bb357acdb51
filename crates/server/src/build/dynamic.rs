//! What becomes of a file's resources, one by one, as in Envoy: one that cannot be used is refused and its former
//! self stays; those that the file no longer names go; one of the bootstrap is not to be changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_config::cluster::LoadAssignment;
use tidegate_config::discovery::response::{self, Resource, Response};
use tidegate_config::discovery::{ConfigSource, Rds};
use tidegate_config::{ClusterConfig, ListenerConfig, RouteConfig};
use tidegate_types::json::{JsonPath, Problem, Span};

use super::bench::Bench;
use crate::discovered::{Collection, Found, Kind, Refusal, Subscription, Tally};

/// What one file holds now.
#[derive(Clone, Copy)]
pub(crate) enum Incoming<'a> {
    /// The files that are known hold what they held.
    Nothing,
    /// Of `cds_config`.
    Clusters(&'a Response<ClusterConfig>),
    /// Of `lds_config`; `refused` are those whose sockets could not be bound, and why.
    Listeners { response: &'a Response<ListenerConfig>, refused: &'a HashMap<String, String> },
    /// A table, to be taken by all that use it or by none.
    Table { rds: &'a Rds, found: &'a Arc<Found<RouteConfig>> },
}

type Discovered<T> = Result<Option<Arc<Collection<T>>>, Problem>;

impl Bench<'_> {
    /// Adds the clusters of `cds_config`.
    ///
    /// # Errors
    /// When there is no such file.
    pub(super) fn discover_clusters(&mut self, source: Option<&ConfigSource>) -> Discovered<ClusterConfig> {
        let Some(source) = source else { return Ok(None) };
        let known = self.previous.and_then(|previous| previous.snapshot.discovered.cds.clone());
        let known = known.filter(|known| known.subscription.source == *source);
        let (old, fresh) = match known {
            Some(known) => (known, None),
            None => {
                let subscription = self.subscribe(source, Kind::Clusters, "cds_config")?;
                let secrets = &self.bootstrap.secrets;
                let response =
                    subscription.read(|text, file, format| response::clusters(text, file, format, secrets));
                (Arc::new(Collection::new(subscription)), response)
            }
        };
        let arrived = match (&self.incoming, &fresh) {
            (Incoming::Clusters(response), _) => *response,
            (_, Some(response)) => response,
            _ => {
                for found in &old.found {
                    // What was valid is valid with another bootstrap, but for what that has itself.
                    if !self.cluster_names.contains(&found.config.name)
                        && let Err(problems) = self.add_cluster(&found.config, &JsonPath::root())
                    {
                        lost("cluster", &found.config.name, &problems);
                    }
                }
                return Ok(Some(old));
            }
        };
        let mut merge = Merge::new(&old, arrived, |config| &config.name);
        for resource in &arrived.resources {
            let name = &resource.value.name;
            if merge.is_double(name) {
                merge.refuse(resource, name, format!("{name}: duplicate cluster {name} found"));
            } else if self.bootstrap.clusters.iter().any(|cluster| cluster.name == *name) {
                tracing::debug!(target: "config", "cluster `{name}` of the bootstrap is not to be changed");
            } else {
                let found = merge.found(resource);
                match self.add_cluster(&found.config, &JsonPath::root()) {
                    Ok(()) => merge.accept(found),
                    Err(problems) => {
                        merge.refuse(resource, name, said(&problems));
                        if let Some(former) = merge.former(name)
                            && self.add_cluster(&former.config, &JsonPath::root()).is_ok()
                        {
                            merge.keep(former);
                        }
                    }
                }
            }
        }
        let (collection, tally) = merge.finish("cluster(s)");
        self.tallies.push(tally);
        Ok(Some(Arc::new(collection)))
    }

    /// Adds the listeners of `lds_config`.
    ///
    /// # Errors
    /// When there is no such file.
    pub(super) fn discover_listeners(&mut self, source: Option<&ConfigSource>) -> Discovered<ListenerConfig> {
        let Some(source) = source else { return Ok(None) };
        let known = self.previous.and_then(|previous| previous.snapshot.discovered.lds.clone());
        let known = known.filter(|known| known.subscription.source == *source);
        let old = match known {
            Some(known) => known,
            // Read when the clusters serve: its listeners may need them.
            None => Arc::new(Collection::new(self.subscribe(source, Kind::Listeners, "lds_config")?)),
        };
        let (arrived, unbound) = match &self.incoming {
            Incoming::Listeners { response, refused } => (*response, *refused),
            _ => {
                for found in &old.found {
                    let of_bootstrap =
                        self.bootstrap.listeners.iter().any(|other| other.name == found.config.name);
                    if !of_bootstrap && let Err(problems) = self.add_listener(&found.config) {
                        // A table that its managers cannot use is refused as a whole.
                        if let Incoming::Table { .. } = self.incoming {
                            return Err(whole(&problems));
                        }
                        lost("listener", &found.config.name, &problems);
                    }
                }
                return Ok(Some(old));
            }
        };
        let mut merge = Merge::new(&old, arrived, |config| &config.name);
        for resource in &arrived.resources {
            let name = &resource.value.name;
            if merge.is_double(name) {
                merge.refuse(resource, name, format!("duplicate listener {name} found"));
                continue;
            }
            if self.bootstrap.listeners.iter().any(|listener| listener.name == *name) {
                tracing::debug!(target: "config", "listener `{name}` of the bootstrap is not to be changed");
                continue;
            }
            let found = merge.found(resource);
            let added = match self.objection(resource).or_else(|| unbound.get(name).cloned()) {
                Some(objection) => Err(objection),
                None => self.add_listener(&found.config).map_err(|problems| said(&problems)),
            };
            match added {
                Ok(()) => merge.accept(found),
                Err(details) => {
                    merge.refuse(resource, name, details);
                    if let Some(former) = merge.former(name)
                        && self.add_listener(&former.config).is_ok()
                    {
                        merge.keep(former);
                    }
                }
            }
        }
        let (collection, tally) = merge.finish("listener(s)");
        self.tallies.push(tally);
        Ok(Some(Arc::new(collection)))
    }

    fn subscribe(
        &self,
        source: &ConfigSource,
        kind: Kind<'_>,
        field: &str,
    ) -> Result<Arc<Subscription>, Problem> {
        let path = JsonPath::root().field("dynamic_resources").field(field);
        Subscription::new(source, kind, self.builder.store)
            .map_err(|error| Problem::new(path, Span::default(), error))
    }

    /// What is wrong with a listener among the others.
    fn objection(&self, resource: &Resource<ListenerConfig>) -> Option<String> {
        if let Some(cluster) = unknown(resource, &|name| self.cluster_names.contains(name)) {
            return Some(format!("route: unknown cluster '{cluster}'"));
        }
        let listener = &resource.value;
        let same = |other: &&crate::snapshot::ListenerSnapshot| {
            other.config.address == listener.address && listener.address.port() != Some(0)
        };
        self.listeners.iter().find(same).map(|other| {
            format!(
                "error adding listener: '{}' has duplicate address '{}' as existing listener '{}'",
                listener.name, listener.address, other.config.name
            )
        })
    }
}

/// A response on its way into a collection.
struct Merge<T> {
    subscription: Arc<Subscription>,
    version: Arc<str>,
    whole: Arc<str>,
    former: HashMap<String, Arc<Found<T>>>,
    seen: HashSet<String>,
    found: Vec<Arc<Found<T>>>,
    refused: Vec<Refusal>,
    changed: bool,
    name: fn(&T) -> &String,
    at: SystemTime,
}

impl<T: Clone + PartialEq> Merge<T> {
    fn new(old: &Collection<T>, response: &Response<T>, name: fn(&T) -> &String) -> Self {
        let former = old.found.iter().map(|found| (name(&found.config).clone(), found.clone()));
        Self {
            subscription: old.subscription.clone(),
            version: response.version.as_str().into(),
            whole: old.version.clone(),
            former: former.collect(),
            seen: HashSet::new(),
            found: Vec::with_capacity(response.resources.len()),
            refused: Vec::new(),
            changed: false,
            name,
            at: SystemTime::now(),
        }
    }

    /// Whether the name was there before in this response.
    fn is_double(&mut self, name: &str) -> bool {
        !self.seen.insert(name.to_owned())
    }

    fn former(&self, name: &str) -> Option<Arc<Found<T>>> {
        self.former.get(name).cloned()
    }

    /// The resource; its former self, with the version that it came with, if nothing differs.
    fn found(&self, resource: &Resource<T>) -> Arc<Found<T>> {
        let former = self.former.get((self.name)(&resource.value));
        match former.filter(|former| *former.config == resource.value) {
            Some(former) => former.clone(),
            None => Arc::new(Found {
                config: Arc::new(resource.value.clone()),
                version: self.version.clone(),
                text: resource.text.clone(),
                at: self.at,
            }),
        }
    }

    fn accept(&mut self, found: Arc<Found<T>>) {
        let former = self.former.get((self.name)(&found.config));
        self.changed |= former.is_none_or(|former| !Arc::ptr_eq(former, &found));
        self.found.push(found);
    }

    fn keep(&mut self, former: Arc<Found<T>>) {
        self.found.push(former);
    }

    fn refuse(&mut self, resource: &Resource<T>, name: &str, details: String) {
        let (name, text) = (name.to_owned(), resource.text.clone());
        self.refused.push(Refusal { name, text, details, at: self.at });
    }

    fn finish(self, what: &str) -> (Collection<T>, Tally) {
        let outcome = if self.refused.is_empty() {
            Ok(self.changed)
        } else {
            let each = self.refused.iter().map(|refusal| format!("{}: {}", refusal.name, refusal.details));
            Err(format!("Error adding/updating {what} {}", each.collect::<Vec<_>>().join(", ")))
        };
        let tally = Tally { subscription: self.subscription.clone(), version: self.version.clone(), outcome };
        let version = if tally.outcome.is_ok() { self.version } else { self.whole };
        let Self { subscription, found, refused, .. } = self;
        (Collection { subscription, version, found, refused }, tally)
    }
}

/// The table `name` that a file holds; `None`: none that can be used, or none at all.
pub(crate) fn table(
    subscription: &Arc<Subscription>,
    name: &str,
    exists: &dyn Fn(&str) -> bool,
) -> (Option<Arc<Found<RouteConfig>>>, Option<Tally>) {
    let objection = |resource: &Resource<RouteConfig>| {
        if resource.value.name != name {
            return Some(format!("Unexpected RDS configuration (expecting {name}): {}", resource.value.name));
        }
        unknown(resource, exists).map(|cluster| format!("route: unknown cluster '{cluster}'"))
    };
    only(subscription, subscription.read(response::route_tables), "RDS", objection)
}

/// The hosts of `cluster` that a file holds; likewise.
pub(crate) fn assignment(
    subscription: &Arc<Subscription>,
    cluster: &ClusterConfig,
) -> (Option<Arc<Found<LoadAssignment>>>, Option<Tally>) {
    let name = cluster.eds.as_ref().and_then(|eds| eds.service_name.as_deref()).unwrap_or(&cluster.name);
    let objection = |resource: &Resource<LoadAssignment>| {
        let other = &resource.value.cluster_name;
        (other != name).then(|| format!("Unexpected EDS cluster (expecting {name}): {other}"))
    };
    only(subscription, subscription.read(response::assignments), "EDS", objection)
}

/// The one resource that a response may hold.
fn only<T>(
    subscription: &Arc<Subscription>,
    response: Option<Response<T>>,
    kind: &str,
    objection: impl FnOnce(&Resource<T>) -> Option<String>,
) -> (Option<Arc<Found<T>>>, Option<Tally>) {
    let Some(response) = response else { return (None, None) };
    let version: Arc<str> = response.version.as_str().into();
    let tally =
        |outcome| Some(Tally { subscription: subscription.clone(), version: version.clone(), outcome });
    let length = response.resources.len();
    let mut resources = response.resources.into_iter();
    let (Some(resource), None) = (resources.next(), resources.next()) else {
        if length == 0 {
            subscription.count_empty();
            return (None, tally(Ok(false)));
        }
        return (None, tally(Err(format!("Unexpected {kind} resource length: {length}"))));
    };
    if let Some(objection) = objection(&resource) {
        return (None, tally(Err(objection)));
    }
    let Resource { value, text, .. } = resource;
    let found = Found { config: Arc::new(value), version: version.clone(), text, at: SystemTime::now() };
    (Some(Arc::new(found)), tally(Ok(true)))
}

/// A cluster that must exist and does not.
fn unknown<'r, T>(resource: &'r Resource<T>, exists: &dyn Fn(&str) -> bool) -> Option<&'r str> {
    resource.references.iter().map(|(cluster, _)| cluster.as_str()).find(|cluster| !exists(cluster))
}

fn said(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// All of them as one.
fn whole(problems: &[Problem]) -> Problem {
    Problem::new(JsonPath::root(), Span::default(), said(problems))
}

fn lost(what: &str, name: &str, problems: &[Problem]) {
    tracing::warn!(target: "config", "the discovered {what} `{name}` does not go with the bootstrap: {}", said(problems));
}
