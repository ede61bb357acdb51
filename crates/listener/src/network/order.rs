//! Which filter may stand where in a chain.

use tidegate_filter::NetworkRole;

/// One filter of a chain, as its configuration names it.
#[derive(Clone, Copy, Debug)]
pub struct ChainEntry<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The name of its kind, such as `envoy.filters.network.echo`.
    pub kind: &'a str,
    /// Whether it ends a chain.
    pub role: NetworkRole,
}

/// Checks that the last filter of a chain, and no other, is a terminal one.
///
/// # Errors
/// The first entry that stands in the wrong place, and Envoy's words for it.
pub fn check_order(chain: &[ChainEntry<'_>]) -> Result<(), (usize, String)> {
    for (index, entry) in chain.iter().enumerate() {
        let ChainEntry { name, kind, role } = entry;
        match (role, index + 1 == chain.len()) {
            (NetworkRole::Terminal, false) => {
                let message = format!(
                    "Error: terminal filter named {name} of type {kind} must be the last filter in a network \
                     filter chain."
                );
                return Err((index, message));
            }
            (NetworkRole::Filter, true) => {
                let message = format!(
                    "Error: non-terminal filter named {name} of type {kind} is the last filter in a network \
                     filter chain."
                );
                return Err((index, message));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_filter_and_no_other_is_terminal() {
        let echo = ChainEntry { name: "e", kind: "envoy.filters.network.echo", role: NetworkRole::Terminal };
        let rbac = ChainEntry { name: "r", kind: "envoy.filters.network.rbac", role: NetworkRole::Filter };
        assert_eq!(check_order(&[rbac, rbac, echo]), Ok(()));
        let (index, message) = check_order(&[echo, echo]).unwrap_err();
        assert_eq!(index, 0);
        assert_eq!(
            message,
            "Error: terminal filter named e of type envoy.filters.network.echo must be the last filter in a \
             network filter chain."
        );
        let (index, message) = check_order(&[rbac]).unwrap_err();
        assert_eq!(index, 0);
        assert_eq!(
            message,
            "Error: non-terminal filter named r of type envoy.filters.network.rbac is the last filter in a \
             network filter chain."
        );
    }
}
