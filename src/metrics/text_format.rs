//! The Prometheus text format 0.0.4, made of the OpenMetrics text that is encoded anyway.
//!
//! Both have the same samples. In OpenMetrics a family is called `x` whose counter is `x_total` and
//! whose info is `x_info`, and there is an end mark; in 0.0.4 the family has the name of the
//! sample, and an info is a gauge.

/// Rewrites the comments of an OpenMetrics page; its samples stay as they are.
pub(super) fn from_openmetrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        match line.split_once(' ') {
            Some(("#", comment)) => match comment.split(' ').next() {
                // Its name follows from the type, which comes next.
                Some("HELP") => help = comment.splitn(3, ' ').nth(2),
                Some("TYPE") => describe(&mut out, comment, help.take()),
                // An end mark or a unit.
                _ => {}
            },
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Writes the comments of a family; `comment` is `TYPE name type`.
fn describe(out: &mut String, comment: &str, help: Option<&str>) {
    let mut words = comment.split(' ').skip(1);
    let (Some(name), Some(kind)) = (words.next(), words.next()) else {
        return;
    };
    let (suffix, kind) = match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        other => ("", other),
    };
    if let Some(help) = help {
        out.push_str(&format!("# HELP {name}{suffix} {help}\n"));
    }
    out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples() {
        let page = "# HELP a Some of a.\n# TYPE a counter\n# UNIT a bytes\na_total{l=\"x y\"} 1\n\
                    # HELP b What b is\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c C\n# TYPE c gauge\nc 2.5\n\
                    # HELP d D\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 0\nd_sum 0.0\nd_count 0\n\
                    # EOF\n";
        let expected = "# HELP a_total Some of a.\n# TYPE a_total counter\na_total{l=\"x y\"} 1\n\
                        # HELP b_info What b is\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                        # HELP c C\n# TYPE c gauge\nc 2.5\n\
                        # HELP d D\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 0\nd_sum 0.0\n\
                        d_count 0\n";
        assert_eq!(from_openmetrics(page), expected);
    }
}
