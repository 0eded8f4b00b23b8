//! Who is in which channel, and how a population is cut into workers. Pure.
//!
//! People are numbered. Pairs and groups take neighbours, in blocks of their size, and begin again at the first when all
//! are used: so channels of different sizes overlap in few people, and many small circles can be told apart. People who
//! share a channel, over however many others, are one circle; a circle lives in one worker, whose checker then knows
//! everything about its channels. People without a channel are circles of their own.

use crate::scenario::Scenario;

/// A channel that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// The name of its set in the scenario.
    pub(super) set: String,
    pub(super) is_direct: bool,
    /// Numbers of people; the first one makes it.
    pub(super) members: Vec<usize>,
    /// Messages before the run begins.
    pub(super) stored: usize,
}

/// All channels of a scenario.
pub(super) fn channels(scenario: &Scenario) -> Vec<Layout> {
    let people = scenario.population.people;
    let mut channels = Vec::new();
    for direct in &scenario.direct {
        // A second round pairs people with others: there is one channel for two.
        let rounds_max = (people / 2).max(1);
        for index in 0..direct.pairs {
            let (round, place) = (index / rounds_max, index % rounds_max);
            let first = 2 * place;
            let second = (first + 1 + 2 * round) % people;
            if first == second || round >= rounds_max {
                break;
            }
            channels.push(Layout {
                set: direct.name.clone(),
                is_direct: true,
                members: vec![first, second],
                stored: direct.stored,
            });
        }
    }
    for group in &scenario.group {
        let blocks = people / group.members;
        for index in 0..group.groups {
            let first = index % blocks * group.members;
            // The one who makes it turns with each round: nobody owns all.
            let owner = index / blocks % group.members;
            let member = |place: usize| first + (owner + place) % group.members;
            channels.push(Layout {
                set: group.name.clone(),
                is_direct: false,
                members: (0..group.members).map(member).collect(),
                stored: group.stored,
            });
        }
    }
    channels
}

/// Which worker each person is in: circles, largest first, go to the worker with the fewest people.
pub(super) fn cut(people: usize, channels: &[Layout], workers: usize) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..people).collect();
    fn root(parent: &mut [usize], mut of: usize) -> usize {
        while parent[of] != of {
            parent[of] = parent[parent[of]];
            of = parent[of];
        }
        of
    }
    for channel in channels {
        for pair in channel.members.windows(2) {
            let (a, b) = (root(&mut parent, pair[0]), root(&mut parent, pair[1]));
            parent[a.max(b)] = a.min(b);
        }
    }
    let circle: Vec<usize> = (0..people).map(|of| root(&mut parent, of)).collect();
    let mut sizes = vec![0; people];
    for of in &circle {
        sizes[*of] += 1;
    }
    let mut circles: Vec<usize> = (0..people).filter(|of| sizes[*of] > 0).collect();
    circles.sort_by_key(|of| std::cmp::Reverse(sizes[*of]));
    let mut load = vec![0; workers];
    let mut worker_of = vec![0; people];
    for of in circles {
        let least = (0..workers).min_by_key(|worker| load[*worker]).unwrap_or(0);
        load[least] += sizes[of];
        worker_of[of] = least;
    }
    circle.iter().map(|of| worker_of[*of]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Scenario {
        Scenario::parse("test", text).expect("a scenario")
    }

    #[test]
    fn pairs_are_different_pairs_and_groups_have_their_size() {
        let scenario = scenario(
            "check = false\n[population]\npeople = 10\n[[direct]]\npairs = 12\n[[group]]\ngroups = 5\nmembers = 4\n",
        );
        let channels = channels(&scenario);
        let mut pairs: Vec<_> = channels
            .iter()
            .filter(|it| it.is_direct)
            .map(|it| {
                let (a, b) = (it.members[0], it.members[1]);
                (a.min(b), a.max(b))
            })
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 12, "no pair twice");
        assert!(pairs.iter().all(|(a, b)| a != b));
        for group in channels.iter().filter(|it| !it.is_direct) {
            let mut members = group.members.clone();
            members.sort_unstable();
            members.dedup();
            assert_eq!(members.len(), 4);
        }
    }

    #[test]
    fn members_of_a_channel_are_never_cut_apart() {
        let scenario = scenario(
            "check = false\n[population]\npeople = 60\n[[direct]]\npairs = 30\n[[group]]\ngroups = 12\nmembers = 10\n",
        );
        let channels = channels(&scenario);
        let workers = cut(60, &channels, 3);
        for channel in &channels {
            assert!(
                channel
                    .members
                    .iter()
                    .all(|it| workers[*it] == workers[channel.members[0]])
            );
        }
        for worker in 0..3 {
            assert_eq!(workers.iter().filter(|it| **it == worker).count(), 20);
        }
    }
}
