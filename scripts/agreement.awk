# Judges whether a program measures what another one measures, from rounds in which both took turns.
#
#   awk -v what=NAME -v base=NAME -v subject=NAME -v least=ROUNDS -f agreement.awk FILE
#
# Each line is a round: the figure of the base, of the subject, and of the base once more, which is
# the control. How far apart two figures of a round are is the absolute logarithm of their ratio. The
# subject agrees when it is, in the median round, about as far from the base as the base is from
# itself: at most 1.25 times as far and 0.02 more, since both medians are estimates.
#
# Exit: 0 they agree, 1 they do not, 3 fewer than `least` rounds.
function apart(a, b,    r) { r = log(a / b); return r < 0 ? -r : r }

# The middle of `list`, which it sorts.
function median(list, n,    i, j, v) {
    for (i = 2; i <= n; i++) {
        v = list[i]
        for (j = i - 1; j > 0 && list[j] > v; j--) list[j + 1] = list[j]
        list[j + 1] = v
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

# A round without any is one that was not measured: a ratio of nothing says nothing.
$1 <= 0 || $2 <= 0 || $3 <= 0 { skipped++; next }
{
    n++
    ours[n] = apart($2, $1); own[n] = apart($3, $1)
    ratio[n] = $2 / $1; again[n] = $3 / $1
}

END {
    if (n < 1) { print what ": no round was measured"; exit 3 }
    ours_apart = median(ours, n); own_apart = median(own, n)
    limit = 1.25 * own_apart + 0.02
    verdict = n < least ? "not judged, fewer than " least " rounds" : ours_apart <= limit ? "they agree" : "THEY DO NOT AGREE"
    printf "%s: %s / %s %.3f in the median of %d rounds, %s again / %s %.3f\n",
        what, subject, base, median(ratio, n), n, base, base, median(again, n)
    printf "  apart in the median round: %.1f %%; %s and itself %.1f %%; limit %.1f %%: %s\n",
        100 * ours_apart, base, 100 * own_apart, 100 * limit, verdict
    if (skipped) printf "  rounds without a figure: %d\n", skipped
    exit n < least ? 3 : ours_apart <= limit ? 0 : 1
}
