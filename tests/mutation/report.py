from dataclasses import dataclass
@dataclass
class K:
    def find(self, t): return None
def explanations(): return K()
def markdown(*a, **k): return ""
def score_lines(trials):
    from collections import Counter
    return [str(Counter(t.outcome for t in trials))]
