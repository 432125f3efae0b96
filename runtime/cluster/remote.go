package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/doorbuster/doorbuster/clockd"
	"github.com/doorbuster/doorbuster/runtime/cluster/batch"
)

const (
	// wellKnown is the id of what receives batches on each node.
	wellKnown = "doorbuster"

	// messageMax bounds what is read from a stream, as one message: a batch, which has
	// at most parcelBytes + BodyMax of bodies, and its columns.
	messageMax = 4 << 20

	// Remote's writer takes one message at a time: a batch that gathers while it sends
	// would only make its own longer. Its queue holds what it was told of, which is one
	// message a peer and round, and the notices; it is the capacity it begins with, the
	// bounds are ours.
	writerBatch = 1
	writerQueue = 256

	connectMax   = 2 * time.Second        // to connect, and then to be greeted
	reconnect    = 100 * time.Millisecond // between two attempts
	streamsMax   = 16                     // of one connection; remote uses one
	keepaliveIn  = 5 * time.Second        // a connection to us that is silent for so long is asked
	keepaliveOut = 10 * time.Second       // the same of ours, which the pings cut much earlier
	keepaliveMax = 2 * time.Second        // and must answer
)

// startRemote listens. Remote panics where it cannot.
func (l *links) startRemote() (err error) {
	host, port, err := net.SplitHostPort(l.cfg.Listen)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("cluster: %q has no number of a port", l.cfg.Listen)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("cluster: cannot listen on %s: %v", l.cfg.Listen, fault)
		}
	}()
	l.system.ProcessRegistry.Add(inbox{l}, wellKnown)
	r := remote.NewRemote(l.system, remote.Configure(host, number,
		remote.WithAdvertisedHost(l.cfg.Advertise),
		remote.WithEndpointWriterBatchSize(writerBatch),
		remote.WithEndpointWriterQueueSize(writerQueue),
		remote.WithDialOptions(l.dialOptions()...),
		remote.WithServerOptions(l.serverOptions()...)))
	r.Start()
	l.remote = r
	subscription := l.system.EventStream.Subscribe(func(event any) {
		if e, ok := event.(*remote.EndpointTerminatedEvent); ok {
			l.broken(e.Address)
		}
	})
	l.unsubscribe = func() { l.system.EventStream.Unsubscribe(subscription) }
	return nil
}

// stopRemote ends the streams of both directions. It does not ask remote to be
// graceful: that waits up to 10 s for the peers, and what has to be said was said.
func (l *links) stopRemote() {
	l.unsubscribe()
	l.streams.close()
	l.remote.Shutdown(false)
}

// post hands a message to remote.
func (l *links) post(to *actor.PID, message remote.RootSerializable) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	if !l.closed {
		l.system.Root.Send(to, message)
	}
}

var batchName = string((&batch.Batch{}).ProtoReflect().Descriptor().FullName())

// outgoing is a batch as remote wants it: it asks the message that it was given for
// what to send, and that for a protobuf.
type outgoing struct{ *batch.Batch }

func (o outgoing) Serialize() (remote.RootSerialized, error)     { return o, nil }
func (o outgoing) Deserialize() (remote.RootSerializable, error) { return o, nil }

// inbox receives the batches, on the goroutine of the stream on which they come: an
// actor would put an unbounded queue between.
type inbox struct{ links *links }

// SendUserMessage reads a batch. Anything else is not for us.
func (i inbox) SendUserMessage(_ *actor.PID, message any) {
	if b, ok := actor.UnwrapEnvelopeMessage(message).(*batch.Batch); ok {
		i.links.receive(b)
	}
}

// SendSystemMessage does nothing: nobody stops or watches it.
func (inbox) SendSystemMessage(*actor.PID, any) {}

// Stop does nothing.
func (inbox) Stop(*actor.PID) {}

func (l *links) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(l.credentials()),
		grpc.WithNoProxy(), // the environment's is for the internet
		grpc.WithStreamInterceptor(l.streams.open),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectMax}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveOut, Timeout: keepaliveMax, PermitWithoutStream: true}),
	}
}

func (l *links) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(l.credentials()),
		grpc.MaxRecvMsgSize(messageMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.ConnectionTimeout(connectMax),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveIn, Timeout: keepaliveMax}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveOut / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.ChainStreamInterceptor(l.guard),
		grpc.ChainUnaryInterceptor(l.recoverCall),
	}
}

func (l *links) credentials() credentials.TransportCredentials {
	if l.cfg.TLS == nil {
		return insecure.NewCredentials()
	}
	return l.cfg.TLS.Transport()
}

// guard stands before remote's reader, which takes a stranger's message to any actor of
// this process, or on to any other address, and panics on an index out of range. Here
// there is one thing to be sent, and one to send it to. The stream of whoever sends
// another ends, and the process goes on.
func (l *links) guard(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer l.recovered(&err)
	return handler(srv, guarded{s, l.cfg.Advertise})
}

type guarded struct {
	grpc.ServerStream
	address string // of this node
}

func (g guarded) RecvMsg(message any) error {
	if err := g.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	b := message.(*remote.RemoteMessage).GetMessageBatch()
	for _, to := range b.GetTargets() {
		if to.Address != g.address || to.Id != wellKnown {
			return status.Errorf(codes.InvalidArgument, "%s %s is not here", to.Address, to.Id)
		}
	}
	for _, name := range b.GetTypeNames() {
		if name != batchName {
			return status.Errorf(codes.InvalidArgument, "a message of type %s", name)
		}
	}
	return nil
}

// recoverCall stands before the calls that remote has not implemented: they panic.
func (l *links) recoverCall(ctx context.Context, ask any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	defer l.recovered(&err)
	return handler(ctx, ask)
}

func (l *links) recovered(err *error) {
	if fault := recover(); fault != nil {
		l.cfg.Logger.Error("cluster: a message panicked", slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.InvalidArgument, "malformed message")
	}
}

// streams are the streams that remote has opened to the peers. Remote sleeps for two
// seconds when one cannot be opened, and cannot be woken; it takes note at once when
// one breaks. So each opens, and those that cannot be break a moment later.
type streams struct {
	clock *clockd.Clock

	mu     sync.Mutex // guards the rest
	live   map[*stream]struct{}
	closed bool
}

// open is a grpc.StreamClientInterceptor.
func (s *streams) open(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	opened := &stream{owner: s, address: cc.Target(), cancel: cancel}
	s.add(opened)
	// A stream that is held up while it opens is cut like any other.
	opened.ClientStream, opened.err = next(ctx, desc, cc, method, opts...)
	return opened, nil
}

func (s *streams) add(opened *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		opened.cancel()
	}
	if s.live == nil {
		s.live = map[*stream]struct{}{}
	}
	s.live[opened] = struct{}{}
}

func (s *streams) remove(ended *stream) {
	ended.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, ended)
}

// cut breaks the streams to an address.
func (s *streams) cut(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.live {
		if other.address == address {
			other.cancel()
		}
	}
}

// close breaks all, now and later.
func (s *streams) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for other := range s.live {
		other.cancel()
	}
}

// stream is one of them, as remote sees it.
type stream struct {
	grpc.ClientStream // nil if it could not be opened
	owner             *streams
	address           string
	cancel            context.CancelFunc
	err               error // why it is broken, known to the one that receives
	greeted           bool  // likewise
	ending            atomic.Bool
}

// SendMsg never fails: RecvMsg does, for the same reason, and remote listens there.
func (s *stream) SendMsg(message any) error {
	if s.ClientStream != nil {
		_ = s.ClientStream.SendMsg(message)
	}
	return nil
}

// RecvMsg gets the greeting first, or one that we make up if there is none.
func (s *stream) RecvMsg(message any) error {
	if !s.greeted {
		s.greeted = true
		s.greet(message)
		return nil
	}
	if s.err == nil {
		if s.err = s.ClientStream.RecvMsg(message); s.err == nil {
			return nil
		}
	} else {
		// Never at once: remote would get to know of the end before the beginning, which
		// it announces later, and would open another for that.
		_ = s.owner.clock.Sleep(context.Background(), reconnect)
	}
	s.owner.remove(s)
	if s.ending.Load() {
		return io.EOF // remote ended it, and need not be told: the next stream to there may live already
	}
	return s.err
}

func (s *stream) greet(message any) {
	if s.err == nil {
		defer s.owner.clock.AfterFunc(connectMax, s.cancel)()
		s.err = s.ClientStream.RecvMsg(message)
	}
	if s.err != nil {
		message.(*remote.RemoteMessage).MessageType = &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{}}
	}
}

// CloseSend is remote's word that it has done with the stream.
func (s *stream) CloseSend() error {
	s.ending.Store(true)
	s.cancel()
	if s.ClientStream == nil {
		return nil
	}
	return s.ClientStream.CloseSend()
}
