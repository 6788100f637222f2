//! Which requests are traced, by `OTEL_TRACES_SAMPLER`.

use super::TraceContext;

/// Decides for a request, from its trace alone, so that all services of one
/// trace decide alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sampler {
    AlwaysOn,
    AlwaysOff,
    /// This share of traces, from 0 to 1.
    Ratio(f64),
    /// As the caller did; where there is none, by the other rule.
    ParentBased(Root),
}

/// The rule for traces that begin here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Root {
    AlwaysOn,
    AlwaysOff,
    Ratio(f64),
}

impl Sampler {
    /// The sampler `name` with its argument, as the variables have them.
    pub(crate) fn parse(name: &str, argument: Option<&str>) -> Option<Self> {
        let ratio = || {
            let Some(argument) = argument else { return Some(1.0) };
            argument.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
        };
        Some(match name {
            "always_on" => Self::AlwaysOn,
            "always_off" => Self::AlwaysOff,
            "traceidratio" => Self::Ratio(ratio()?),
            "parentbased_always_on" => Self::ParentBased(Root::AlwaysOn),
            "parentbased_always_off" => Self::ParentBased(Root::AlwaysOff),
            "parentbased_traceidratio" => Self::ParentBased(Root::Ratio(ratio()?)),
            _ => return None,
        })
    }

    /// `context`, sampled or not.
    pub(crate) fn decide(self, context: TraceContext) -> TraceContext {
        let sampled = match self {
            Self::ParentBased(_) if context.parent.is_some() => context.is_sampled(),
            Self::AlwaysOn | Self::ParentBased(Root::AlwaysOn) => true,
            Self::AlwaysOff | Self::ParentBased(Root::AlwaysOff) => false,
            Self::Ratio(ratio) | Self::ParentBased(Root::Ratio(ratio)) => is_within(context.trace, ratio),
        };
        context.sampled(sampled)
    }
}

/// As the SDKs have it: the last 56 bits of a trace's id are random.
fn is_within(trace: u128, ratio: f64) -> bool {
    let random = (trace & ((1 << 56) - 1)) as f64;
    random < ratio * (1_u64 << 56) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(trace: u128, parent: Option<u64>, flags: u8) -> TraceContext {
        TraceContext { trace, parent, span: 1, flags }
    }

    #[test]
    fn a_callers_decision_is_kept_unless_the_sampler_ignores_it() {
        let decide = |name, flags| {
            let sampler = Sampler::parse(name, Some("0.5")).unwrap();
            sampler.decide(context(1, Some(2), flags)).is_sampled()
        };
        for name in ["parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"] {
            assert!(decide(name, 1) && !decide(name, 0), "{name}");
        }
        assert!(decide("always_on", 0) && !decide("always_off", 1));
        assert!(decide("traceidratio", 0), "a trace of a low id is within half of all");
    }

    #[test]
    fn a_ratio_takes_its_share_of_traces_that_begin_here() {
        let sampler = Sampler::parse("parentbased_traceidratio", Some("0.25")).unwrap();
        let step = (1_u128 << 56) / 1000;
        let taken = (0..1000).filter(|n| sampler.decide(context(n * step, None, 0)).is_sampled()).count();
        assert!((249..=251).contains(&taken), "{taken}");
    }

    #[test]
    fn an_unknown_sampler_or_a_ratio_out_of_range_is_none() {
        assert_eq!(Sampler::parse("sometimes", None), None);
        for ratio in ["2", "-0.1", "x", "NaN"] {
            assert_eq!(Sampler::parse("traceidratio", Some(ratio)), None, "{ratio}");
        }
        assert_eq!(Sampler::parse("traceidratio", None), Some(Sampler::Ratio(1.0)));
    }
}
