from srcli.models.lapar.network import Lapar
class _S:
    def __init__(s,c,m): s.c,s.m=c,m
    def build(s,scale): return Lapar(s.c,s.m,scale)
def get_model(n): return _S(*{'lapar-a':(32,4),'lapar-b':(24,3),'lapar-c':(16,2)}[n])
